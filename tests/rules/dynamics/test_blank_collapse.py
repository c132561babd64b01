"""CTC701 on hand-made histories: first what must stay silent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcguard.finding import Finding
from ctcguard.history import CALLS
from ctcguard.rules.dynamics.blank_collapse import BlankCollapse
from tests.rules.dynamics.histories import Column, collapsed, history, noisy, readings


def check(calls: int = CALLS, last_step: int = 2000, rule: BlankCollapse | None = None, **other: Any) -> Finding | None:
    return (rule or BlankCollapse()).check(readings(collapsed(calls, last_step, **other)))


def halves(first: float, second: float) -> Column:
    """One level, then another."""
    return np.repeat([first, second], CALLS // 2)


NONE_MEASURED = np.full(CALLS, math.nan)
THINNED = np.where(np.arange(CALLS) % 16, math.nan, 1.0)

HEALTHY: dict[str, dict[str, Any]] = {
    "sparse labels, all of them found": {"labels": 3.0, "blank_fraction": 0.97, "constant_ratio": 0.01},
    "sparse labels, not well known yet": {"labels": 3.0, "blank_fraction": 0.97},
    "half of the labels found": {"blank_fraction": 0.9},
    "labels found in the end": {"blank_fraction": np.repeat([1.0, 0.97], [CALLS - 128, 128])},
    "low loss, peaks below one half": {"constant_ratio": 0.5},
    "converged, low and flat": {"blank_fraction": 0.8, "constant_ratio": 0.003},
    "falling": {"constant_ratio": np.linspace(0.92, 0.88, CALLS)},
    "falling in the end": {"constant_ratio": np.repeat([0.9, 0.87], [CALLS - 128, 128])},
    "too noisy to say": {"constant_ratio": noisy(0.9, 0.3)},
    "two heads in turns, one of them well": {"constant_ratio": np.resize([0.9, 0.1], CALLS)},
    "background only": {"labels": 0.0, "constant_ratio": math.nan},
    "background most of the time": {"constant_ratio": np.where(np.arange(CALLS) % 3, math.nan, 0.9)},
    "uniform: that is CTC703": {"uniform_ratio": 1.0, "constant_ratio": 5.0},
    "nothing measured": {"blank_fraction": NONE_MEASURED},
    "no losses": {"constant_ratio": NONE_MEASURED, "loss_nats": NONE_MEASURED},
    "losses are NaN or infinite, which others say": {"constant_ratio": math.inf, "loss_nats": math.inf},
    "negative losses, which others say": {"constant_ratio": -0.9, "loss_nats": -57.0},
    "early": {"last_step": 1999},
    "few calls": {"calls": CALLS - 1},
}


@pytest.mark.parametrize("case", HEALTHY)
def test_healthy(case: str) -> None:
    assert check(**HEALTHY[case]) is None


SICK: dict[str, dict[str, Any]] = {
    "as it is": {},
    "over budget, one call in sixteen measured": {"blank_fraction": THINNED},
    "noise": {"constant_ratio": noisy(0.9, 0.01)},
    "rising": {"constant_ratio": np.linspace(0.9, 1.2, CALLS)},
    "single bad batches": {"constant_ratio": np.where(np.arange(CALLS) % 100, 0.9, math.inf)},
    "late": {"last_step": 100_000},
    "a label now and then": {"blank_fraction": 0.985},
    "curriculum": {"labels": np.linspace(5, 30, CALLS), "input_length_mean": np.linspace(25, 150, CALLS)},
}


@pytest.mark.parametrize("case", SICK)
def test_sick(case: str) -> None:
    found = check(**SICK[case])
    assert found is not None
    assert (found.code, found.severity, found.cause) == ("CTC701", "warning", "constant-output")


@pytest.mark.parametrize(
    ("name", "at", "beyond"),
    [
        ("blank_fraction", 0.9801, 0.9799),  # 0.02 of the frames for 0.2 that the labels need: emitted_fraction 0.1
        ("constant_ratio", 0.6, 0.599),
        ("constant_ratio", halves(1.0, 0.9901), halves(1.0, 0.9899)),
        ("last_step", 2000, 1999),
    ],
)
def test_thresholds(name: str, at: Any, beyond: Any) -> None:
    assert check(**{name: at}) is not None
    assert check(**{name: beyond}) is None


def test_thresholds_can_be_set() -> None:
    patient = BlankCollapse(grace_steps=3000)
    assert check(rule=patient) is None
    assert check(rule=patient, last_step=3000) is not None
    quick = BlankCollapse(grace_steps=100, calls=32, emitted_fraction=0.5, level=0.1, fall=0.5)
    assert check(32, 100, quick, blank_fraction=0.95, constant_ratio=np.linspace(0.3, 0.2, 32)) is not None
    assert BlankCollapse().calls <= CALLS


FRAMES = np.random.default_rng(0).uniform(50, 150, CALLS)
OTHER_LABELS = np.random.default_rng(1).uniform(10, 30, CALLS)


@pytest.mark.parametrize(
    ("other", "cause", "evidence", "fix"),
    [
        ({}, "constant-output", "frames enough (5.0 a label)", "one batch alone"),
        ({"constant_ratio": 3.0}, "far-out", "bring the loss to 33% of this", "ten times lower"),
        ({"constant_ratio": 9.0, "uniform_ratio": 4.0}, "far-out", "11%", "clip_grad_norm_"),
        ({"labels": 50.0}, "few-frames", "2.0 frames a label", "subsample by less"),
        (
            {"input_length_mean": FRAMES, "labels": OTHER_LABELS},
            "unpaired",
            "correlation is below 0.",
            "print ids, lengths and transcripts",
        ),
        ({"input_length_mean": FRAMES, "labels": FRAMES / 5}, "constant-output", "5.0 a label", "one batch alone"),
        ({"labels": OTHER_LABELS}, "constant-output", "a label", "one batch alone"),  # all clips are equally long
    ],
)
def test_causes(other: dict[str, Any], cause: str, evidence: str, fix: str) -> None:
    found = check(**other)
    assert found is not None
    assert found.cause == cause
    assert evidence in found.evidence
    assert fix in found.fix


def test_message() -> None:
    found = check()
    assert found is not None
    assert found.message == (
        "labels must win at least 20.0% of the frames, but in the last 1024 training calls (steps 977 to 2000) the "
        "blank won 100.0%, as good as all; the loss stood still at 57 nats an utterance, 0.90 times the least that an "
        "output which never changes can reach when all labels are equally frequent"
    )
    assert found.readings == {
        "loss_nats": 57,
        "constant_ratio": 0.9,
        "uniform_ratio": 0.3,
        "frames_per_label": 5,
        "calls": 1024,
    }


@given(
    share=st.floats(0.05, 0.99),
    level=st.floats(0.1, 50),
    deviation=st.floats(0, 0.1),
    bend=st.floats(0.8, 3),
    seed=st.integers(0, 2**31),
)
def test_a_falling_loss_never_fires(share: float, level: float, deviation: float, bend: float, seed: int) -> None:
    """By 5% or more within the window, straight or bent, with noise, at all blanks all the same."""
    falling = level * (1 - share * np.linspace(0, 1, CALLS) ** bend) * noisy(1, deviation, seed=seed)
    assert check(constant_ratio=falling) is None


@given(st.floats(0.001, 1), st.floats(0.2, 1), st.integers(0, 2**31))
def test_labels_that_are_found_never_fire(density: float, found: float, seed: int) -> None:
    """However rare they are: when as much as a fifth of them wins a frame."""
    length = np.random.default_rng(seed).uniform(50, 2000, CALLS)
    labels = length * density
    assert check(blank_fraction=1 - density * found, labels=labels, input_length_mean=length) is None


def test_noise_delays_it_but_not_for_ever() -> None:
    """Small batches: of ten looks at a loss that stands still, one is enough."""
    assert any(check(constant_ratio=noisy(0.9, 0.03, seed=seed)) for seed in range(10))


def test_nothing_remembered() -> None:
    assert BlankCollapse().check(readings(history(0))) is None
