"""CTC302."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ctcguard
from ctcguard.finding import Finding
from ctcguard.readings import Readings
from ctcguard.rules.lengths.input_length_out_of_range import InputLengthOutOfRange


def check(lengths: list[float], frames: float = 9, labels: list[float] | None = None) -> Finding | None:
    known: dict[str, Any] = {"input_lengths": np.asarray(lengths, dtype=float), "frames": frames}
    if labels is not None:
        known["target_lengths"] = np.asarray(labels, dtype=float)
    return InputLengthOutOfRange().check(Readings(known))


@pytest.mark.parametrize("lengths", [[9], [1], [9, 1, 5]])
def test_healthy(lengths: list[float]) -> None:
    assert check(lengths) is None


@pytest.mark.parametrize(
    ("lengths", "cause", "fix"),
    [
        ([10], "beyond-time", "round as the model does"),
        ([11], "beyond-time", "round as the model does"),
        ([12], "beyond-time", "after subsampling: (n + 2 * padding - kernel) // stride + 1"),
        ([12, 0], "beyond-time", "after subsampling"),
        ([0], "below-one", "drop clips shorter than the receptive field"),
        ([9, -1], "below-one", "receptive field"),
        ([9, math.nan], "below-one", "receptive field"),
        ([0.5], "below-one", "receptive field"),
    ],
)
def test_fires(lengths: list[float], cause: str, fix: str) -> None:
    finding = check(lengths, labels=[2.0] * len(lengths))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC302", cause, "error")
    assert "are not in 1 … 9, the frames of log_probs" in finding.message
    assert fix in finding.fix


def test_nan_frames_fire() -> None:
    assert check([3], math.nan) is not None


def test_an_item_that_only_fills_the_batch_is_information() -> None:
    finding = check([9, 0], labels=[2, 0])
    assert finding is not None
    assert (finding.cause, finding.severity, list(finding.affected)) == ("below-one", "information", [1])
    assert finding.fix == "nothing, if that is meant"


def test_such_an_item_does_not_hide_a_wrong_one() -> None:
    finding = check([9, 0, 0], labels=[2, 0, 1])
    assert finding is not None
    assert (finding.severity, list(finding.affected)) == ("error", [2])
    unknown = check([9, 0])
    assert unknown is not None
    assert unknown.severity == "error"


def test_utterances_are_named_worst_first() -> None:
    finding = check([9, 10, 19, 10, 11, 10, 10])
    assert finding is not None
    assert [u.index for u in finding.utterances] == [2, 4, 1, 3, 5]
    assert finding.utterances[0].note == "input length 19 of 9 frames"
    assert finding.message.startswith("6 of 7 input lengths")


def test_end_to_end() -> None:
    call = {
        "log_probs": np.log(np.full((2, 9, 4), 0.25)),
        "targets": [[1, 2]] * 2,
        "target_lengths": [2, 2],
        "blank": 0,
    }
    assert ctcguard.diagnose(**call, input_lengths=[9, 5]) == ()
    (verdict,) = ctcguard.diagnose(**call, input_lengths=[9, 0])
    assert [finding.code for finding in verdict.findings()] == ["CTC302", "CTC301"]
