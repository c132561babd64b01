"""What is read off a window of calls."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcguard.rules.dynamics._window import Window
from tests.rules.dynamics.histories import collapsed, history, noisy


def window(**columns: object) -> Window:
    return Window(collapsed(64, **columns))


@pytest.mark.parametrize(("calls", "steps", "reached"), [(64, 2000, True), (65, 2000, False), (64, 2001, False)])
def test_reached(calls: int, steps: int, reached: bool) -> None:
    assert window().reached(calls, steps) == reached


def test_no_calls_reach_nothing() -> None:
    assert not Window(history(0)).reached(16, 0)


def test_span_and_parts() -> None:
    assert window().span() == "the last 64 training calls (steps 1937 to 2000)"
    assert window().latest(16).span() == "the last 16 training calls (steps 1985 to 2000)"
    assert window().before(16).span() == "the last 48 training calls (steps 1937 to 1984)"


def test_median_and_quantile_leave_out_what_was_not_measured() -> None:
    values = np.arange(64.0)
    values[:8], values[8:16] = math.nan, math.inf
    found = window(constant_ratio=values)
    assert found.median("constant_ratio") == pytest.approx(np.median(values[16:]), abs=1)
    assert found.quantile("constant_ratio", 0.25) == pytest.approx(np.quantile(values[16:], 0.25), abs=1)
    values[16] = math.nan  # now more than a quarter is unknown
    assert math.isnan(window(constant_ratio=values).quantile("constant_ratio", 0.25))
    assert math.isnan(window(constant_ratio=math.nan).median("constant_ratio"))


@given(st.floats(0, 0.9), st.floats(0.01, 1e3), st.integers(16, 1024))
def test_a_straight_fall(share: float, level: float, calls: int) -> None:
    """From the middle of the first quarter to the middle of the last eighth: 13/16 of the whole."""
    values = level * np.linspace(1, 1 - share, calls)
    fall = Window(history(calls, constant_ratio=values)).fall("constant_ratio", errors=0)
    assert fall == pytest.approx(13 / 16 * share / (1 - share / 8), abs=0.15 * share + 1e-9)


@pytest.mark.parametrize("values", [np.zeros(64), np.full(64, -1.0), np.full(64, math.nan), np.full(64, math.inf)])
def test_a_loss_that_is_none_does_not_stand_still(values: np.ndarray) -> None:
    assert window(constant_ratio=values).fall("constant_ratio") == math.inf


def test_a_rise_is_no_fall() -> None:
    assert window(constant_ratio=np.linspace(1, 2, 64)).fall("constant_ratio", errors=0) < 0


def test_the_end_is_looked_at_closely() -> None:
    values = np.ones(64)
    values[-8:] = 0.9
    assert window(constant_ratio=values).fall("constant_ratio") == pytest.approx(0.1)


@pytest.mark.parametrize("deviation", [0.01, 0.1, 0.3])
def test_two_standard_errors_cover_the_noise(deviation: float) -> None:
    """Of a loss that falls by 5%, how often it is said to fall by less than it does."""
    slope = np.linspace(1.03, 0.98, 1024)
    falls = [
        Window(history(constant_ratio=slope * noisy(1, deviation, seed=seed))).fall("constant_ratio")
        for seed in range(200)
    ]
    assert np.mean(np.asarray(falls) < 0.05 * 3 / 4) <= 0.04


@pytest.mark.parametrize(
    ("blank", "emitted"),
    [(1.0, 0.0), (0.98, 0.1), (0.8, 1.0), (np.repeat([1.0, 0.8], [56, 8]), 1.0), (np.repeat([0.8, 1.0], [8, 56]), 1.0)],
)
def test_emitted_is_the_most_of_eight_parts(blank: object, emitted: float) -> None:
    assert window(blank_fraction=blank).emitted() == pytest.approx(emitted)


@pytest.mark.parametrize(("measured", "known"), [(4, True), (3, False)])
def test_emitted_needs_some_calls(measured: int, known: bool) -> None:
    blank = np.full(64, math.nan)
    blank[-measured:] = 1.0
    assert math.isfinite(window(blank_fraction=blank).emitted()) == known


def test_emitted_where_nothing_is_said() -> None:
    assert window(labels=0.0).emitted() == math.inf
    silence = np.repeat([0.0, 20.0], [32, 32])  # parts without labels do not count
    assert window(labels=silence, blank_fraction=np.repeat([0.5, 1.0], [32, 32])).emitted() == 0


def test_pairing() -> None:
    frames = np.random.default_rng(0).uniform(50, 150, 1024)
    other = np.random.default_rng(1).uniform(5, 15, 1024)

    def pairing(frames: object, labels: object) -> float:
        return Window(history(input_length_mean=frames, labels=labels)).pairing()

    assert pairing(frames, frames / 10) > 1
    assert pairing(frames, other) < 0.2
    assert pairing(frames, 10.0) == 1
    assert pairing(100.0, other) == 1


@pytest.mark.parametrize(("low", "nothing"), [(51, True), (53, False)])
def test_knows_nothing_in_95_of_100_calls(low: int, nothing: bool) -> None:
    ratio = np.ones(1024)
    ratio[:low] = 0.5
    assert Window(history(uniform_ratio=ratio)).knows_nothing(0.02) == nothing
