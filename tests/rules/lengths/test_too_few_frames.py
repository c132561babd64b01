"""CTC301: exact, against a search through all alignments."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ctcguard
from ctcguard.finding import Finding
from ctcguard.readings import Readings
from ctcguard.rules.lengths.too_few_frames import TooFewFrames

FRAMES = 6


def has_alignment(labels: list[int], frames: int) -> bool:
    """Whether any path of that many frames collapses to the labels: merge equal neighbours, drop the blanks (0)."""
    paths = itertools.product(range(3), repeat=frames)
    return any([label for label, _ in itertools.groupby(path) if label] == labels for path in paths)


def codes(targets: list[list[int]], input_lengths: list[int], **more: Any) -> list[str]:
    batch, room = len(targets), max(map(len, targets))
    call = {
        "log_probs": np.log(np.full((batch, FRAMES, 3), 1 / 3)),
        "targets": np.asarray([row + [0] * (room - len(row)) for row in targets], dtype=np.int64).reshape(batch, room),
        "input_lengths": input_lengths,
        "target_lengths": [len(row) for row in targets],
        "blank": 0,
    }
    return [finding.code for verdict in ctcguard.diagnose(**call, **more) for finding in verdict.findings()]


@settings(max_examples=200)
@given(st.lists(st.integers(1, 2), max_size=5), st.integers(0, FRAMES))
def test_exact(labels: list[int], frames: int) -> None:
    assert ("CTC301" in codes([labels], [frames])) != has_alignment(labels, frames)


def check(frames: list[float], labels: list[float], repeats: list[float], hidden: bool = False) -> Finding | None:
    columns = {"input_lengths": frames, "target_lengths": labels, "adjacent_repeats": repeats}
    readings = {name: np.asarray(values, dtype=float) for name, values in columns.items()}
    return TooFewFrames().check(Readings({**readings, "zero_infinity": hidden}))


@pytest.mark.parametrize(("frames", "labels", "repeats"), [(4, 3, 1), (5, 3, 1), (3, 3, 0), (0, 0, 0), (1, 0, 0)])
def test_healthy(frames: float, labels: float, repeats: float) -> None:
    assert check([frames], [labels], [repeats]) is None


@pytest.mark.parametrize(
    ("frames", "labels", "repeats", "cause"),
    [
        ([3.0], [3.0], [1.0], "repeats"),
        ([2.0], [3.0], [0.0], "too-short"),
        ([3.0, 2.0, 9.0, 9.0, 9.0], [3.0] * 5, [1.0] * 5, "too-short"),
        ([3.0, 3.0, 9.0, 9.0], [3.0] * 4, [1.0] * 4, "most-of-the-batch"),  # at the threshold
        ([3.0, 3.0, 9.0, 9.0, 9.0], [3.0] * 5, [1.0] * 5, "repeats"),  # under it
        ([math.nan], [3.0], [0.0], "too-short"),
        ([9.0], [math.nan], [0.0], "too-short"),
        ([9.0], [3.0], [math.nan], "repeats"),
    ],
)
def test_causes(frames: list[float], labels: list[float], repeats: list[float], cause: str) -> None:
    finding = check(frames, labels, repeats)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC301", cause, "error")


def test_zero_infinity_makes_it_a_warning() -> None:
    finding = check([2, 9], [3, 3], [0, 0], hidden=True)
    assert finding is not None
    assert finding.severity == "warning"
    assert "zero_infinity hides them" in finding.message


def test_utterances_are_named_worst_first() -> None:
    finding = check([9, 2, 1, 2, 2, 2, 2, *[9] * 9], [3] * 16, [0] * 16)
    assert finding is not None
    assert finding.message.startswith("6 of 16 utterances have fewer frames than labels + adjacent repeats")
    assert [u.index for u in finding.utterances] == [2, 1, 3, 4, 5]
    assert finding.utterances[0].note == "1 frames for 3 labels + 0 adjacent repeats"
    assert "len(labels) + adjacent repeats" in finding.fix
