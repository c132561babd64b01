"""CTC704 on hand-made histories: first what must stay silent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcguard.finding import Finding
from ctcguard.history import CALLS
from ctcguard.rules.dynamics.loss_spike import LossSpike
from tests.rules.dynamics.histories import Column, history, noisy, readings

STEADY = {"labels": 20.0, "input_length_mean": 100.0}


def check(ratio: Any, last_step: int = 5000, rule: LossSpike | None = None, **other: Any) -> Finding | None:
    ratio = np.asarray(ratio, dtype=float)
    columns = history(len(ratio), last_step, constant_ratio=ratio, loss_nats=60 * ratio, **(STEADY | other))
    return (rule or LossSpike()).check(readings(columns))


def levels(*parts: tuple[float, int]) -> Column:
    """One level after the other, each for so many calls, with a little noise."""
    clean = np.concatenate([np.full(calls, level) for level, calls in parts])
    return clean * noisy(1, 0.05, len(clean))


JUMP = levels((0.05, 700), (1.0, 324))
RECOVERY = np.concatenate([levels((0.05, 700)), np.geomspace(3, 0.3, 324)])

HEALTHY: dict[str, dict[str, Any]] = {
    "steady": {"ratio": levels((0.05, CALLS))},
    "falling": {"ratio": np.linspace(1, 0.05, CALLS)},
    "a spike that is over": {"ratio": levels((0.05, 500), (4.0, 200), (0.05, 324))},
    "a spike that has just begun": {"ratio": levels((0.05, 800), (4.0, 224))},
    "a spike on its way back": {"ratio": RECOVERY},
    "restarts of the learning rate": {"ratio": levels(*[(0.2, 64), (0.05, 192)] * 4)},
    "a restart that takes long": {"ratio": levels((0.05, 700), (0.3, 324))},
    "single bad batches": {"ratio": np.where(np.arange(CALLS) % 10, levels((0.05, CALLS)), 5.0)},
    "a warm-up": {"ratio": levels((4.0, 300), (1.0, 724))},
    "tasks in turns": {"ratio": levels(*[(0.05, 256), (1.0, 256)] * 2)},
    "tasks in turns, call by call": {"ratio": np.resize([0.05, 1.0], CALLS)},
    "a plateau before": {"ratio": levels((1.0, 200), (0.1, 500), (1.0, 324))},
    "not far above": {"ratio": levels((0.4, 700), (0.7, 324))},
    "a curriculum: longer": {"ratio": JUMP, "input_length_mean": np.repeat([100.0, 140.0], [700, 324])},
    "a curriculum: denser": {"ratio": JUMP, "labels": np.repeat([20.0, 26.0], [700, 324])},
    "NaN, which CTC502 says": {"ratio": np.where(np.arange(CALLS) < 700, 0.05, math.nan)},
    "infinite, which CTC502 says": {"ratio": np.where(np.arange(CALLS) < 700, 0.05, math.inf)},
    "no losses": {"ratio": np.full(CALLS, math.nan)},
    "early": {"ratio": JUMP, "last_step": 999},
    "few calls": {"ratio": levels((0.05, 255), (1.0, 256))},
    "nothing remembered": {"ratio": []},
}


@pytest.mark.parametrize("case", HEALTHY)
def test_healthy(case: str) -> None:
    assert check(**HEALTHY[case]) is None


SICK: dict[str, dict[str, Any]] = {
    "a jump": {"ratio": JUMP},
    "as early as can be": {"ratio": levels((0.05, 256), (1.0, 256)), "last_step": 1000},
    "after a spike": {"ratio": levels((0.05, 600), (20.0, 100), (1.0, 324))},
    "with single good batches": {"ratio": np.where(np.arange(CALLS) % 20, JUMP, 0.01)},
    "with single bad batches before": {"ratio": np.where((np.arange(CALLS) % 20) | (JUMP > 0.5), JUMP, 9.0)},
    "some lengths differ": {"ratio": JUMP, "input_length_mean": np.repeat([100.0, 110.0], [700, 324])},
    "some calls not known": {"ratio": np.where(np.arange(CALLS) % 9, JUMP, math.nan)},
}


@pytest.mark.parametrize("case", SICK)
def test_sick(case: str) -> None:
    found = check(**SICK[case])
    assert found is not None
    assert (found.code, found.severity, found.cause) == ("CTC704", "warning", "diverged")


@pytest.mark.parametrize(
    ("before", "after", "calls", "fires"),
    [
        (0.25, 0.51, 256, True),
        (0.26, 0.51, 256, False),  # not twice as high
        (0.05, 0.51, 256, True),
        (0.05, 0.49, 256, False),  # still better than half of a constant output
        (0.05, 0.51, 240, False),
    ],
)
def test_thresholds(before: float, after: float, calls: int, fires: bool) -> None:
    ratio = np.repeat([before, after], [CALLS - calls, calls])
    assert (check(ratio) is not None) == fires


def test_thresholds_can_be_set() -> None:
    quick = LossSpike(grace_steps=50, calls=16, factor=1.5, level=0.1, recovery=0.9)
    assert check(np.concatenate([np.full(40, 0.1), np.linspace(0.4, 0.2, 24)]), 64, quick) is not None
    assert 2 * LossSpike().calls <= CALLS


@pytest.mark.parametrize(("high", "fires"), [(32, True), (48, False)])
def test_how_much_of_the_earlier_range_may_be_high(high: int, fires: bool) -> None:
    """Of 704 calls, 5% are 35."""
    ratio = np.repeat([1.0, 0.05, 1.0], [high, 704 - high, 320])
    assert (check(ratio) is not None) == fires
    assert check(ratio, rule=LossSpike(tolerated_fraction=0.1)) is not None


def test_where_and_how_far() -> None:
    found = check(np.repeat([0.05, 1.0], [700, 324]))
    assert found is not None
    assert found.readings["since_step"] == pytest.approx(5000 - 324, abs=16)
    assert (
        found.evidence == "1.00 times the least that an output which never changes can reach: what was learned is lost"
    )
    assert "in the run's range, 3 nats an utterance (median of 704 training calls)" in found.message
    assert f"since step {found.readings['since_step']} it has been 60" in found.message
    assert f"before step {found.readings['since_step']}" in found.fix
    far = check(np.repeat([0.05, 15.0], [700, 324]))
    assert far is not None
    assert far.evidence == "15.00 times the least that an output which never changes can reach: the scores are far out"


@given(st.floats(0.01, 10), st.floats(0.2, 1), st.floats(0, 0.3), st.integers(0, 2**31))
def test_a_loss_that_does_not_rise_never_fires(level: float, end: float, deviation: float, seed: int) -> None:
    assert check(level * np.linspace(1, end, CALLS) * noisy(1, deviation, seed=seed)) is None


@given(st.floats(1, 100), st.integers(1, 12), st.floats(0.001, 0.2))
def test_a_spike_that_is_over_in_200_calls_never_fires(height: float, begin: int, level: float) -> None:
    ratio = np.full(CALLS, level)
    ratio[64 * begin : 64 * begin + 200] = height
    for end in range(512, CALLS + 1, 16):
        assert check(ratio[:end]) is None
