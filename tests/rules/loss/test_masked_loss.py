"""CTC503."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ctcguard import diagnose
from ctcguard.readings import Readings
from ctcguard.rules.loss.masked_loss import MaskedLoss
from tests.reference.calls import findings, of_optax, of_torch


def readings(
    *losses: float, zero_infinity: bool = False, frames: Any = (9, 3, 2), repeats: Any = (0, 0, 0)
) -> Readings:
    columns = {"losses": losses, "input_lengths": frames, "target_lengths": (3, 3, 3), "adjacent_repeats": repeats}
    return Readings({k: np.asarray(v, float) for k, v in columns.items()} | {"zero_infinity": zero_infinity})


@pytest.mark.parametrize(
    "healthy",
    [
        readings(1.0, 2.0, np.inf),
        readings(1.0, 2.0, np.nan),
        readings(0.0, 0.0, np.inf, zero_infinity=True),
        readings(1e5, 709.0, np.inf),
        readings(0.0, 1e5, 0.0, frames=(9, 3, 3)),
        readings(np.nan, np.inf, 0.0, frames=(9, 3, 3), zero_infinity=True),
    ],
)
def test_silent_for_whatever_has_an_alignment(healthy: Readings) -> None:
    assert MaskedLoss().check(healthy) is None


@pytest.mark.parametrize(
    ("sick", "cause", "said", "evidence"),
    [
        (
            readings(1.0, 2.0, 0.0, zero_infinity=True),
            "zero-infinity",
            "1 of 3 utterances (33%)",
            "by zero_infinity=True",
        ),
        (readings(1.0, 2.0, 0.0), "zero-infinity", "but it is 0", "warp-ctc"),
        (readings(1.0, 2.0, 100001.5), "large-constant", "but it is 100002", "a constant"),
        (readings(1.0, 2.0, 708.8), "large-constant", "but it is 708.8", "a constant"),
        (readings(1.0, 2.0, 3.0), "large-constant", "but it is 3", "a constant"),
        (readings(1.0, 2.0, 0.0, frames=(9, np.nan, 3)), "large-constant", "but it is 2", "a constant"),
    ],
)
def test_fires(sick: Readings, cause: str, said: str, evidence: str) -> None:
    finding = MaskedLoss().check(sick)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC503", cause, "warning")
    assert said in finding.message
    assert evidence in finding.evidence
    assert "frames >= len(labels) + adjacent repeats" in finding.fix


def test_repeats_need_a_frame_each() -> None:
    sick = readings(1.0, 0.0, np.inf, repeats=(0, 1, 0), zero_infinity=True)
    finding = MaskedLoss().check(sick)
    assert finding is not None
    assert finding.affected == {1}
    assert finding.readings["batch_fraction"] == pytest.approx(1 / 3)


GIVEN: dict[str, Any] = {"input_lengths": [9, 2, 9], "target_lengths": [2, 2, 2]}
TARGETS = np.asarray([[1, 1], [2, 2], [1, 2]])


def test_zero_infinity_of_torch() -> None:
    log_probs = torch.randn(9, 3, 4).log_softmax(-1)
    (verdict,) = diagnose(**of_torch(log_probs, torch.asarray(TARGETS), zero_infinity=True, **GIVEN))
    assert (verdict.code, [f.code for f in verdict.also]) == ("CTC301", ["CTC503"])
    assert (verdict.also[0].cause, verdict.also[0].affected) == ("zero-infinity", {1})


def test_zero_infinity_with_nothing_to_hide_is_silent() -> None:
    log_probs = torch.randn(9, 3, 4).log_softmax(-1)
    call = of_torch(log_probs, torch.asarray(TARGETS), [9, 3, 9], [2, 2, 2], zero_infinity=True)
    assert findings(**call) == []


def test_constant_of_optax() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 9, 4)).astype(np.float32)
    (verdict,) = diagnose(**of_optax(logits, TARGETS, **GIVEN))
    assert (verdict.code, [f.code for f in verdict.also]) == ("CTC301", ["CTC503"])
    assert (verdict.also[0].cause, verdict.also[0].affected) == ("large-constant", {1})
