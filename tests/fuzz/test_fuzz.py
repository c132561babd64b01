"""Calls of every bad kind: no exception into the training, no silence about a label out of range. A short run.

``python benchmarks/fuzz/run.py --calls 100000`` makes many of them and writes its figures.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.calls import Call, Judging, Random, call, guards, judged, missing, outcome_of, stopped, trained

SHORT = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


class Drawn:
    """Choices of hypothesis, which then looks for the simplest that fail."""

    def __init__(self, data: Any) -> None:
        self._data = data

    def whole(self, low: int, high: int) -> int:
        return int(self._data.draw(st.integers(low, high)))

    def one(self, options: Sequence[Any]) -> Any:
        return self._data.draw(st.sampled_from(options))


@pytest.fixture(autouse=True)
def _warnings_of_numpy_are_errors() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        yield


@SHORT
@given(st.data())
def test_a_training_call_is_as_without_a_guard(data: Any) -> None:
    judging = Judging()
    try:
        outcome = trained(call(Drawn(data), wild=False), judging, Drawn(data))
    finally:
        judging.close()
    assert outcome.exception == ""


@SHORT
@given(st.data())
def test_no_label_out_of_range_is_missed(data: Any) -> None:
    judging = Judging()
    try:
        outcome = judged(call(Drawn(data)), judging)
    finally:
        judging.close()
    assert (outcome.exception, outcome.missed) == ("", "")


def test_a_label_out_of_range_never_reaches_the_kernel() -> None:
    judging = Judging(on_error="raise")
    tried = [stopped(call(Random(seed)), judging) for seed in range(150)]
    judging.close()
    assert [(each.exception, each.missed) for each in tried if each.exception or each.missed] == []


def test_many_calls_under_one_guard() -> None:
    those = guards()
    tried = [outcome_of(number, Random(number), those) for number in range(400)]
    for judging in those.values():
        judging.close()
    assert [each for each in tried if each.exception or each.missed] == []
    assert len({each.kind for each in tried}) > 30


def test_twin_a_label_that_nobody_speaks_of_is_seen() -> None:
    made = Call("by hand", np.zeros((1, 9, 4)), [[1, 4]], [9], [2], 0, labels=[[1, 4]])
    assert "beyond" in missing(made, {"CTC402"})
    assert missing(made, {"CTC201"}) == ""
    made.labels = [[1, -1]]
    assert "negative" in missing(made, {"CTC201"})
