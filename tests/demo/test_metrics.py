"""The character error rate, against counts made by hand and against a slower road."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcguard.demo.metrics import character_error_rate, edit_distance


@pytest.mark.parametrize(
    ("reference", "hypothesis", "distance"),
    [("", "", 0), ("", "one", 3), ("one", "", 3), ("kitten", "sitting", 3), ("one two", "onetwo", 1), ("ab", "ba", 2)],
)
def test_edit_distance_by_hand(reference: str, hypothesis: str, distance: int) -> None:
    assert edit_distance(reference, hypothesis) == distance


def by_recursion(a: str, b: str) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return distance(len(a), len(b))


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_edit_distance_by_a_second_road(a: str, b: str) -> None:
    assert edit_distance(a, b) == by_recursion(a, b) == edit_distance(b, a)


def test_error_rate_weighs_by_characters() -> None:
    assert character_error_rate(["abcd", "ab"], ["abcd", "ba"]) == pytest.approx(2 / 6)
    assert character_error_rate(["ab"], ["ab"]) == 0
    assert character_error_rate(["a"], ["abc"]) == 2


def test_error_rate_needs_references_and_pairs() -> None:
    with pytest.raises(ValueError, match="at least one character"):
        character_error_rate([""], ["one"])
    with pytest.raises(ValueError, match="zip"):
        character_error_rate(["one", "two"], ["one"])
