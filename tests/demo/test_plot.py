"""Bars: right of zero, left of zero, on one scale."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcguard.demo.plot import bars

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ([], []),
        ([0.0], ["|"]),
        ([9.0, 4.5], ["|#########", "|####"]),
        ([-9.0, -3.0], ["#########|", "      ###|"]),
        ([6.0, 0.0, -3.0], ["   |######", "   |", "###|"]),
        ([9.0, -1e-9], [" |#########", "#|"]),
        ([9.0, math.nan, math.inf, -math.inf], ["|#########", "|", "|", "|"]),
    ],
    ids=["none", "zero", "above", "below", "both", "just below", "not finite"],
)
def test_bars_by_hand(values: list[float], lines: list[str]) -> None:
    assert bars(values, width=10) == lines


@given(st.lists(NUMBERS, min_size=1), st.integers(2, 80))
def test_each_bar_is_on_its_side_of_one_zero_line_and_to_scale(values: list[float], width: int) -> None:
    lines = bars(values, width)
    [zero] = {line.index("|") for line in lines}
    assert max(map(len, lines)) <= width + 1
    mark = (max(0.0, *values, 0.0) - min(0.0, *values, 0.0)) / (width - 1)
    for value, line in zip(values, lines, strict=True):
        below, above = line[:zero].count("#"), line[zero:].count("#")
        assert (below > 0, above > 0) == (value < 0, value > 0)
        assert line[zero - below : zero + 1 + above] == "#" * below + "|" + "#" * above
        assert (below + above) * mark == pytest.approx(abs(value), abs=mark)
