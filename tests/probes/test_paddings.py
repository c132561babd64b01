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

from ctcguard.probes.paddings import forward_maximum, padding_faults

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
