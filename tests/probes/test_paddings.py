"""Paddings and forward log-probs, with every array library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ctcguard.call import ctc_call
from ctcguard.probes.paddings import COMPARED_PAIRS, edge_changes, forward_maximum, padding_faults

ROWS = np.asarray([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1], [1, 0, 1, 0]], np.float32)
every_library = pytest.mark.parametrize(
    ("convert", "wrap"),
    [
        (np.asarray, lambda f: f),
        (array_api_strict.asarray, lambda f: f),
        (torch.asarray, lambda f: f),
        (jnp.asarray, jax.jit),
    ],
    ids=["numpy", "array-api-strict", "torch", "jax.jit"],
)


@every_library
def test_where_padding_stands(convert: Callable[[Any], Any], wrap: Callable[[Any], Any]) -> None:
    labels = np.tile(np.asarray([3, 1, 4, 1]), (6, 1))
    found = wrap(padding_faults)(convert(ROWS), convert(ROWS), convert(labels))
    columns = {name: np.asarray(values).tolist() for name, values in found.items()}
    assert columns["padded_first_frames"] == columns["padded_first_labels"] == [0, 2, 0, 0, 1, 2]
    assert columns["starts_padded_frames"] == columns["starts_padded_labels"] == [0, 1, 1, 0, 0, 1]
    assert columns["padded_label_span"] == [3, 2, 3, 0, 0, 1]


@every_library
def test_no_labels_at_all(convert: Callable[[Any], Any], wrap: Callable[[Any], Any]) -> None:
    none = convert(np.zeros((6, 0), np.float32))
    found = wrap(padding_faults)(convert(ROWS), none, none)
    assert np.asarray(found["padded_first_labels"]).tolist() == [0] * 6
    assert np.asarray(found["padded_label_span"]).tolist() == [0] * 6


@every_library
def test_forward_maximum_looks_within_the_lengths(convert: Callable[[Any], Any], wrap: Callable[[Any], Any]) -> None:
    phi, emit = np.full((3, 2, 3), -1.0, np.float32), np.full((3, 2, 2), -2.0, np.float32)
    phi[2, 0, 0], phi[0, 1, 2], emit[0, 1, 1], emit[1, 0, 0] = 9, 9, 9, 0.5
    lengths, counts = np.asarray([2, 3], np.int32), np.asarray([2, 1], np.int32)
    found = wrap(forward_maximum)(*map(convert, (phi, emit, lengths, counts)))
    assert np.asarray(found["forward_max"]).tolist() == [0.5, -1.0]


@every_library
def test_forward_maximum_of_nothing_and_of_nan(convert: Callable[[Any], Any], wrap: Callable[[Any], Any]) -> None:
    phi, emit = np.full((2, 2, 1), -1.0, np.float32), np.zeros((2, 2, 0), np.float32)
    phi[0, 1] = np.nan
    lengths = np.asarray([0, 2], np.int32)
    found = wrap(forward_maximum)(*map(convert, (phi, emit, lengths, np.zeros_like(lengths))))
    values = np.asarray(found["forward_max"])
    assert values[0] == -np.inf
    assert np.isnan(values[1])


def changes(scores: np.ndarray, lengths: list[int], convert: Callable[[Any], Any], wrap: Any) -> tuple[float, float]:
    """Leading and trailing change; labels play no part."""

    def of(scores: Any, lengths: Any) -> Any:
        labels = {"targets": np.ones((scores.shape[0], 1), int), "target_lengths": np.ones(scores.shape[0], int)}
        return edge_changes(ctc_call(logits=scores, input_lengths=lengths, blank=0, **labels))

    found = wrap(of)(convert(scores), convert(np.asarray(lengths)))
    return float(found["leading_change"]), float(found["trailing_change"])


def rows(*peaks: list[float]) -> np.ndarray:
    """Scores of two classes whose largest are these."""
    highest = np.asarray(peaks, np.float32)
    return np.stack([highest, highest - 1], axis=2)


@every_library
def test_changes_of_frames_before_and_within_the_last_ones(
    convert: Callable[[Any], Any], wrap: Callable[[Any], Any]
) -> None:
    scores = rows([1, 1, 1, 5, 8, 6], [2, 2, 9, 4, 8, 9])
    assert changes(scores, [3, 4], convert, wrap) == (0.0, 3.0)  # 0 0 0, and 3 2 5 4 1
    assert changes(scores, [2, 2], convert, wrap) == (0.0, 1.0)
    assert np.isnan(changes(scores, [6, 6], convert, wrap)[0])
    assert np.isnan(changes(scores, [1, 0], convert, wrap)[1])


@every_library
def test_changes_leave_out_what_is_not_finite(convert: Callable[[Any], Any], wrap: Callable[[Any], Any]) -> None:
    scores = rows([1, 1, np.nan, 5, 8, np.inf], [1, 1, 1, 1, 1, 1])
    assert changes(scores[:1], [3], convert, wrap) == (0.0, 3.0)
    assert np.isnan(changes(rows([np.nan] * 4), [2], convert, wrap)).all()


@every_library
def test_changes_of_one_frame_are_not_known(convert: Callable[[Any], Any], wrap: Callable[[Any], Any]) -> None:
    with pytest.raises(KeyError, match="leading_change"):
        changes(rows([1.0]), [1], convert, wrap)


@every_library
def test_changes_of_many_frames_are_those_of_a_sample(
    convert: Callable[[Any], Any], wrap: Callable[[Any], Any]
) -> None:
    time = np.arange(COMPARED_PAIRS)
    peaks = np.where(time < COMPARED_PAIRS // 2, 1e-3 * (time % 2), time % 2)
    found = changes(rows(*np.tile(peaks, (9, 1))), [COMPARED_PAIRS // 2] * 9, convert, wrap)
    assert found == pytest.approx((1e-3, 1.0))
