"""Whatever the numbers and shapes: nothing raises, nothing is changed, nothing is copied to the host."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctcguard.call import ctc_call
from ctcguard.probes import CONTRACT, DISTRIBUTION, measure, unpack

EXTREMES = (-(2**63), -1, 0, 2**40, 2**63 - 1)
Measure = Callable[..., dict[str, Any]]


def call(batch: int = 2, frames: int = 6, classes: int = 4, labels: int = 3) -> dict[str, Any]:
    return {
        "log_probs": np.full((batch, frames, classes), -np.log(max(1, classes)), np.float32),
        "targets": np.ones((batch, labels), int),
        "input_lengths": np.full(batch, frames),
        "target_lengths": np.full(batch, labels),
        "blank": 0,
    }


@pytest.mark.parametrize("empty", ["batch", "frames", "classes", "labels"])
@pytest.mark.parametrize("losses", [True, False])
def test_empty_axes(measured: Measure, empty: str, losses: bool) -> None:
    values = call(**{empty: 0})
    if losses:
        values["losses"] = np.ones(values["log_probs"].shape[0], np.float32)
    found = measured(**values)
    assert found["adjacent_repeats"].tolist() == [0 if empty == "labels" else 2] * len(found["input_lengths"])
    assert ("score_max" in found) == (empty == "labels")


def test_nothing_to_measure(measured: Measure) -> None:
    assert measured(probes=DISTRIBUTION, **call(frames=0)) == {}


def test_concatenated_targets_of_no_utterance(measured: Measure) -> None:
    found = measured(**{**call(batch=0), "targets": np.asarray([1, 2])})
    assert found["label_max"] == -1


@pytest.mark.parametrize("name", ["targets", "input_lengths", "target_lengths"])
@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("concatenated", [True, False])
def test_extreme_integers(measured: Measure, name: str, extreme: int, concatenated: bool) -> None:
    values = call()
    if concatenated:
        values["targets"] = values["targets"].reshape(-1)
    values[name] = np.full_like(values[name], extreme)
    assert measured(**values)["label_max"] >= -1


@pytest.mark.parametrize("extreme", EXTREMES)
def test_extreme_labels_are_out_of_range_or_negative(extreme: int) -> None:
    values = call()
    values["targets"][1, 2] = extreme
    found = unpack(*measure(ctc_call(**values), CONTRACT))
    assert found["out_of_range_labels"].tolist() == [0, int(extreme > 3)]
    assert found["negative_labels"].tolist() == [0, int(extreme < 0)]


def test_lengths_that_do_not_add_up(measured: Measure) -> None:
    values = {**call(), "targets": np.asarray([1, 1, 2])}
    assert measured(**values)["adjacent_repeats"].tolist() == [1, 0]
    assert measured(**{**values, "target_lengths": np.asarray([1, 1])})["adjacent_repeats"].tolist() == [0, 0]


numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=100)
@given(
    scores=arrays.arrays(np.float32, (2, 5, 3), elements=numbers),
    losses=arrays.arrays(np.float32, (2,), elements=numbers),
    targets=arrays.arrays(np.int64, (2, 3)),
    lengths=arrays.arrays(np.int64, (2, 2)),
)
def test_any_values(scores: np.ndarray, losses: np.ndarray, targets: np.ndarray, lengths: np.ndarray) -> None:
    values = {"log_probs": scores, "losses": losses, "targets": targets}
    values |= {"input_lengths": lengths[0], "target_lengths": lengths[1]}
    by_numpy = unpack(*measure(ctc_call(**values, blank=0), CONTRACT + DISTRIBUTION))
    in_torch = {name: torch.asarray(value.copy()) for name, value in values.items()}
    by_torch = unpack(*measure(ctc_call(**in_torch, blank=0), CONTRACT + DISTRIBUTION))
    assert by_numpy.keys() == by_torch.keys()
    for name in ("score_max", "non_finite_frames", "losses", "out_of_range_labels", "negative_labels", "sample_max"):
        np.testing.assert_array_equal(by_numpy[name], by_torch[name], err_msg=name)


def test_read_only_numpy_is_left_alone() -> None:
    values = {**call(), "losses": np.ones(2, np.float32)}
    before = {name: np.copy(value) for name, value in values.items()}
    for value in values.values():
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
    measure(ctc_call(**values), CONTRACT + DISTRIBUTION)
    for name, value in before.items():
        np.testing.assert_array_equal(values[name], value)


def test_views_that_are_not_contiguous(measured: Measure) -> None:
    plain = call(batch=4, frames=8)
    spread = {name: np.repeat(value, 2, axis=0)[::2] if name != "blank" else value for name, value in plain.items()}
    spread["log_probs"] = np.repeat(plain["log_probs"], 3, axis=2)[:, :, ::3]
    found, expected = measured(**spread), measured(**plain)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("targets", ["padded", "concatenated"])
@pytest.mark.parametrize("lengths", ["tensors", "lists"])
def test_meta_tensors_run_through(targets: str, lengths: str) -> None:
    """A tensor on torch's ``meta`` device has no numbers: whatever would read one fails."""
    values = {name: torch.asarray(value).to("meta") for name, value in call().items() if name != "blank"}
    if targets == "concatenated":
        values["targets"] = values["targets"].reshape(-1)
    if lengths == "lists":
        values |= {"input_lengths": [6, 6], "target_lengths": [3, 3]}
    normal = ctc_call(**values, blank=0, losses=torch.ones(2, device="meta"))
    for probes, beside in product((CONTRACT, CONTRACT + DISTRIBUTION), (None, normal.scores)):
        packed, layout = measure(normal, probes, beside=beside)
        assert packed.device.type == "meta"
        assert packed.shape == (len(layout.scalars) + 2 * len(layout.columns),)


def test_no_gradient_is_recorded_of_detached_views() -> None:
    leaf = torch.zeros(2, 6, 4, requires_grad=True)
    values = {**call(), "log_probs": leaf.log_softmax(-1).detach(), "losses": torch.ones(2)}
    with torch.no_grad():
        packed, _ = measure(ctc_call(**values), CONTRACT + DISTRIBUTION, beside=values["log_probs"])
    assert packed.grad_fn is None
    assert leaf.grad is None


def test_packed_is_small_and_float32_unless_a_value_is_wider() -> None:
    device = torch.zeros(0)
    narrow, layout = measure(ctc_call(**call()), CONTRACT + DISTRIBUTION, beside=device)
    assert narrow.dtype == torch.float32
    assert narrow.nbytes <= 4 * (19 + 16 * layout.batch)
    wide, _ = measure(ctc_call(**{**call(), "losses": np.ones(2)}), CONTRACT + DISTRIBUTION, beside=device)
    assert wide.dtype == torch.float64
    assert type(measure(ctc_call(**call()), CONTRACT + DISTRIBUTION)[0]) is np.ndarray


def test_unpack_gives_back_what_was_measured() -> None:
    normal = ctc_call(**{**call(), "losses": np.asarray([1.5, -2.0], np.float32)})
    packed, layout = measure(normal, CONTRACT + DISTRIBUTION)
    found = unpack(packed, layout)
    assert tuple(found) == layout.scalars + layout.columns
    assert found["losses"].tolist() == [1.5, -2.0]
    assert isinstance(found["label_max"], float)
