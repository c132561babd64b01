"""How many alignments there are, and how low a loss can be."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from ctcguard.readings import Readings
from ctcguard.rules.loss._alignments import feasible, least_loss, sound
from tests.reference.ctc import alignments, loss, repeats


def readings(frames: int, labels: tuple[int, ...], best: float = 0.0) -> Readings:
    values = {"input_lengths": frames, "target_lengths": len(labels), "adjacent_repeats": repeats(labels)}
    return Readings({name: np.asarray([float(value)]) for name, value in {**values, "frame_max_sum": best}.items()})


@pytest.mark.parametrize("frames", range(6))
@pytest.mark.parametrize("labels", [labels for size in range(4) for labels in product((0, 2), repeat=size)])
def test_alignments_are_counted_as_by_trying_all(frames: int, labels: tuple[int, ...]) -> None:
    count = len(alignments(frames, labels, classes=3, blank=1))
    given = readings(frames, labels)
    assert bool(feasible(given)[0]) == (count > 0)
    if count:
        assert least_loss(given, np.asarray([0]))[0] == pytest.approx(-math.log(count), abs=1e-12)


def test_no_random_loss_is_below_the_bound_and_a_uniform_one_is_on_it() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        frames, classes = int(generator.integers(1, 9)), int(generator.integers(2, 5))
        labels = tuple(generator.integers(1, classes, size=generator.integers(0, 4)).tolist())
        scores = generator.normal(scale=generator.choice([0.0, 1.0, 30.0]), size=(frames, classes))
        given = readings(frames, labels, best=float(scores.max(1).sum()))
        if feasible(given)[0]:
            right, bound = loss(scores.tolist(), labels, blank=0), float(least_loss(given, np.asarray([0]))[0])
            assert right >= bound - 1e-9
            assert scores.any() or right == pytest.approx(bound, abs=1e-9)


def test_long_utterances_do_not_overflow() -> None:
    assert least_loss(readings(30_000, tuple(range(1, 10_001))), np.asarray([0]))[0] == pytest.approx(-27_720.363)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("input_lengths", 2.0),
        ("target_lengths", -1.0),
        ("adjacent_repeats", 9.0),
        ("out_of_range_labels", 1.0),
        ("negative_labels", 1.0),
        ("non_finite_frames", np.nan),
    ],
)
def test_nothing_is_said_of_an_unsound_utterance(column: str, value: float) -> None:
    given = readings(10, (1, 2, 3)).with_values({"frames": 10})
    assert sound(given)[0]
    assert not sound(given.with_values({column: np.asarray([value])}))[0]
    assert not sound(given.with_values({"frames": 9}))[0]
