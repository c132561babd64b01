"""Unusual, but right: the rules about scores and losses stay silent, or say no more than information."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch

from ctcguard.finding import Severity
from tests.reference.calls import findings, of_optax, of_torch

LOGITS = torch.randn(60, 4, 12, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([[1, 2, 3, 4], [5, 5, 6, 0], [7, 8, 0, 0], [9, 9, 9, 9]])
CALL: dict[str, Any] = {"targets": TARGETS, "input_lengths": [60, 50, 40, 60], "target_lengths": [4, 3, 2, 4]}


def right(logits: torch.Tensor = LOGITS, **other: Any) -> dict[str, Any]:
    return of_torch(logits.log_softmax(-1), **{**CALL, **other})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_softmax_in_another_precision_cast_to_float32(dtype: torch.dtype, scale: float) -> None:
    assert findings(**of_torch((scale * LOGITS).to(dtype).log_softmax(-1).float(), **CALL)) == []


def test_wide_head_in_half_precision() -> None:
    wide = torch.randn(8, 4, 8000).to(torch.bfloat16).log_softmax(-1).float()
    assert findings(**of_torch(wide, TARGETS, [8] * 4, [4, 3, 2, 1])) == []


def test_log_softmax_twice() -> None:
    assert findings(**right(LOGITS.log_softmax(-1))) == []


@pytest.mark.parametrize(("eps", "silent"), [(1e-10, True), (1e-6, True), (8e-4, False)])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_log_of_softmax_plus_eps(eps: float, silent: bool, scale: float) -> None:
    found = findings(**of_torch(((scale * LOGITS).softmax(-1) + eps).log(), **CALL))
    assert {finding.severity for finding in found} <= {Severity.INFORMATION}
    assert (found == []) == silent


def test_a_certain_model_with_eps_has_a_slightly_negative_loss() -> None:
    certain = 100.0 * torch.nn.functional.one_hot(torch.arange(60) % 12, 12).float()[:, None, :]
    call = {"targets": torch.arange(60)[None, :] % 12, "input_lengths": [60], "target_lengths": [60], "blank": 0}
    call["targets"] = call["targets"][call["targets"] > 0]
    call["target_lengths"] = [55]
    given = of_torch((certain.softmax(-1) + 8e-4).log(), **call)
    assert given["losses"][0] < -0.02
    assert {(f.code, f.severity) for f in findings(**given)} == {("CTC402", Severity.INFORMATION)}


def test_tiny_negative_loss() -> None:
    call = right()
    call["losses"] = torch.tensor([-8.3e-8, 3.0, 3.0, 3.0])
    assert "CTC501" not in {finding.code for finding in findings(**call)}


def test_empty_targets_have_a_large_loss() -> None:
    call = right(LOGITS - 5.0 * (torch.arange(12) == 0), target_lengths=[4, 0, 0, 0])
    assert call["losses"].isfinite().all()
    assert findings(**call) == []


def test_targets_without_room_for_a_label() -> None:
    assert findings(**right(targets=torch.zeros(4, 0, dtype=torch.long), target_lengths=[0] * 4)) == []


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_reductions(reduction: str) -> None:
    assert findings(**right(), reduction=reduction) == []


def test_classes_that_are_never_used() -> None:
    unused = LOGITS.masked_fill(torch.arange(12) >= 10, -torch.inf)
    assert findings(**right(unused)) == []
    assert findings(**right(unused, zero_infinity=True)) == []


@pytest.mark.parametrize("garbage", [torch.nan, torch.inf, -torch.inf, 1e30, 7.0])
def test_garbage_beyond_the_lengths(garbage: float) -> None:
    log_probs = LOGITS.log_softmax(-1)
    log_probs[50:, 1] = garbage
    log_probs[40:, 2] = garbage
    targets = TARGETS.clone()
    targets[1, 3:] = -100
    targets[2, 2:] = 10**6
    assert findings(**of_torch(log_probs, **{**CALL, "targets": targets})) == []


def test_as_many_frames_as_labels() -> None:
    targets = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1], [1, 2, 1, 2], [5, 6, 7, 8]])
    assert findings(**right(LOGITS[:4], targets=targets, input_lengths=[4] * 4, target_lengths=[4] * 4)) == []


def test_static_padding() -> None:
    assert findings(**right(input_lengths=[30, 20, 10, 15])) == []


def test_concatenated_targets_and_blank_last() -> None:
    row = torch.tensor([1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 9, 9, 9])
    assert findings(**right(targets=row, blank=11)) == []


def test_all_blank_output() -> None:
    collapsed = LOGITS + 12.0 * (torch.arange(12) == 0)
    assert findings(**right(collapsed)) == []


def test_certain_and_right() -> None:
    path = torch.tensor([1, 2, 3, 4] + [0] * 56)
    certain = 200.0 * torch.nn.functional.one_hot(path, 12).float()[:, None, :]
    call = of_torch(certain.log_softmax(-1), TARGETS[:1], [60], [4], zero_infinity=True)
    assert call["losses"][0] == 0
    assert findings(**call) == []


@pytest.mark.parametrize(
    "prepared", [lambda x: x, jax.nn.log_softmax, lambda x: 50 * x, lambda x: x.astype("bfloat16")]
)
def test_optax(prepared: Callable[[Any], Any]) -> None:
    logits = prepared(jax.numpy.asarray(LOGITS.permute(1, 0, 2).numpy()))
    call = of_optax(logits, TARGETS.numpy(), np.asarray(CALL["input_lengths"]), np.asarray(CALL["target_lengths"]))
    assert findings(**call) == []
