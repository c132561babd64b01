"""CTC703 on hand-made histories: first what must stay silent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcguard.finding import Finding
from ctcguard.history import CALLS
from ctcguard.rules.dynamics.no_progress import NoProgress
from tests.rules.dynamics.histories import history, noisy, readings

STUCK = {
    "uniform_ratio": 1.0,
    "constant_ratio": 5.0,
    "loss_nats": 346.0,
    "labels": 10.0,
    "input_length_mean": 100.0,
}


def check(calls: int = CALLS, last_step: int = 2000, rule: NoProgress | None = None, **other: Any) -> Finding | None:
    return (rule or NoProgress()).check(readings(history(calls, last_step, **(STUCK | other))))


HEALTHY: dict[str, dict[str, Any]] = {
    "below": {"uniform_ratio": 0.97},
    "the plateau of blanks": {"uniform_ratio": 0.3, "constant_ratio": 1.0},
    "below in some calls": {"uniform_ratio": np.where(np.arange(CALLS) % 16, 1.0, 0.9)},
    "two heads in turns, one of them well": {"uniform_ratio": np.resize([1.0, 0.2], CALLS)},
    "on its way down": {"uniform_ratio": np.linspace(1.6, 1.0, CALLS)},
    "about to leave": {"uniform_ratio": np.repeat([1.1, 1.0], [CALLS - 128, 128])},
    "no labels, which CTC204 says": {"constant_ratio": math.nan, "labels": 0.0},
    "no losses": {"uniform_ratio": math.nan, "loss_nats": math.nan},
    "losses are infinite, which CTC502 says": {"uniform_ratio": math.inf, "loss_nats": math.inf},
    "far out, and all blank: that is CTC701": {"uniform_ratio": 2.0, "constant_ratio": 9.0, "top_fraction": 1.0},
    "early": {"last_step": 1999},
    "few calls": {"calls": CALLS - 1},
}


@pytest.mark.parametrize("case", HEALTHY)
def test_healthy(case: str) -> None:
    assert check(**HEALTHY[case]) is None


@pytest.mark.parametrize(
    ("other", "fires"),
    [
        ({"uniform_ratio": 0.98}, True),
        ({"uniform_ratio": 0.979}, False),
        ({"uniform_ratio": np.repeat([1.02, 0.99], CALLS // 2)}, True),  # a fall of 2.9%
        ({"uniform_ratio": np.repeat([1.02, 0.989], CALLS // 2)}, False),  # of 3.04%
        ({"last_step": 2000}, True),
        ({"last_step": 1999}, False),
    ],
)
def test_thresholds(other: dict[str, Any], fires: bool) -> None:
    assert (check(**other) is not None) == fires


def test_thresholds_can_be_set() -> None:
    assert check(32, 100, NoProgress(grace_steps=100, calls=32, margin=0.2), uniform_ratio=0.85) is not None
    assert check(rule=NoProgress(fall=0.5), uniform_ratio=np.linspace(1.4, 1.0, CALLS)) is not None
    assert NoProgress().calls <= CALLS


@pytest.mark.parametrize(
    ("other", "cause", "evidence", "fix"),
    [
        ({}, "weights-at-rest", "bring the loss to 20% of this", "param_groups[0]['lr']"),
        ({"constant_ratio": 1.05, "labels": 80.0}, "no-signal", "with 1.2 frames a label", "subsample by less"),
        ({"uniform_ratio": 1.4, "constant_ratio": 7.0}, "weights-at-rest", "14%", "optimizer.step()"),
        ({"uniform_ratio": noisy(40, 0.1), "top_fraction": 0.7}, "far-out", "times the uniform loss", "ten times"),
    ],
)
def test_causes(other: dict[str, Any], cause: str, evidence: str, fix: str) -> None:
    found = check(**other)
    assert found is not None
    assert (found.code, found.severity, found.cause) == ("CTC703", "warning", cause)
    assert evidence in found.evidence
    assert fix in found.fix


def test_message() -> None:
    found = check(uniform_ratio=1.25)
    assert found is not None
    assert found.message == (
        "the loss must fall below that of a uniform output, 276.8 nats an utterance, but over the last 1024 training "
        "calls (steps 977 to 2000) it was 346, and in 95% of them at least 1.25 times the uniform one"
    )


@given(st.floats(0.1, 0.99), st.floats(0.5, 100), st.floats(0, 0.03), st.integers(0, 2**31))
def test_a_falling_loss_never_fires(share: float, level: float, deviation: float, seed: int) -> None:
    falling = level * np.linspace(1, 1 - share, CALLS) * noisy(1, deviation, seed=seed)
    assert check(uniform_ratio=falling) is None


def test_nothing_remembered() -> None:
    assert NoProgress().check(readings(history(0))) is None
