"""What outputs that know nothing lose, against outputs that are really like that."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctcguard.baselines import LARGEST, _tables, baselines
from tests.reference.ctc import loss, repeats

GRID = 0.011
"""Nats a frame that 50 blanks may miss of the best one: where that is 0 or 1."""


def of(frames: int, labels: list[int], classes: int, symbols: int) -> tuple[float, float]:
    lengths = np.asarray([[frames], [len(labels)], [repeats(labels)]])
    uniform, constant = baselines(lengths, classes, symbols)
    return float(uniform[0]), float(constant[0])


def best_of_many(frames: int, labels: list[int], symbols: int) -> float:
    """The best of 50 blanks, the symbols sharing the rest, by the forward algorithm."""
    outputs = [[np.log(p), *np.full(symbols, np.log((1 - p) / symbols))] for p in np.linspace(0.01, 0.99, 50)]
    return min(loss([output] * frames, labels, 0) for output in outputs)


@pytest.mark.parametrize("labels", [[], [1], [1, 2, 3], [1, 1, 2], [2, 2, 2, 2]])
def test_uniform(labels: list[int]) -> None:
    rows = np.full((9, 5), -np.log(5)).tolist()
    assert of(9, labels, 5, 4)[0] == pytest.approx(loss(rows, labels, 0))


@pytest.mark.parametrize(
    ("frames", "symbols", "least"),
    [(40, 28, 0.99), (40, 10, 0.97), (20, 10, 0.97), (12, 10, 0.97), (40, 4, 0.9), (20, 4, 0.9), (12, 4, 0.9)],
)
def test_constant_is_close_to_the_best_there_is(frames: int, symbols: int, least: float) -> None:
    """Whatever blank and frames, all symbols being equally frequent: never above the true value, and near it."""
    labels = [1 + i % symbols for i in range(10)]
    best = best_of_many(frames, labels, symbols)
    constant = of(frames, labels, symbols + 1, symbols)[1]
    assert least * constant <= best <= constant + GRID * frames


@settings(max_examples=40)
@given(st.integers(1, 12), st.lists(st.integers(1, 4), max_size=6))
def test_bounds(slack: int, labels: list[int]) -> None:
    frames = len(labels) + repeats(labels) + slack - 1
    if not frames:
        return
    uniform, constant = of(frames, labels, 6, 4)
    assert -1e-9 <= constant <= uniform + 1e-9
    if labels:
        assert constant >= best_of_many(frames, labels, 4) - GRID * frames
    else:
        assert constant == pytest.approx(0, abs=1e-9)


def test_tables_grow() -> None:
    for frames in (10, 2000, 30):
        assert baselines(np.asarray([[frames], [0], [0]]), 7, 6)[0] == pytest.approx(frames * np.log(7))


def test_no_utterances() -> None:
    assert [len(found) for found in baselines(np.zeros((3, 0), dtype=int), 5, 4)] == [0, 0]


def test_garbage_takes_no_memory() -> None:
    baselines(np.asarray([[LARGEST], [5], [0]]), 5, 4)
    assert sum(table.nbytes for table in _tables.values()) < 80e6
