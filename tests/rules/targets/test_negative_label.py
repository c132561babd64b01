"""CTC202."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ctcguard
from ctcguard.readings import Readings
from ctcguard.rules.targets.negative_label import NegativeLabel
from ctcguard.verdict import Verdict


def diagnose(targets: Any, target_lengths: list[int], frames: int = 9) -> tuple[Verdict, ...]:
    batch = len(target_lengths)
    call = {"targets": targets, "input_lengths": [frames] * batch, "target_lengths": target_lengths, "blank": 0}
    return ctcguard.diagnose(log_probs=np.log(np.full((batch, frames, 4), 0.25)), **call)


@pytest.mark.parametrize(
    ("targets", "target_lengths"), [([[1, 2, -100]], [2]), ([[1, -1], [2, 3]], [1, 2]), ([1, 2, 3], [1, 2])]
)
def test_healthy(targets: Any, target_lengths: list[int]) -> None:
    assert diagnose(targets, target_lengths) == ()


@pytest.mark.parametrize(
    ("targets", "target_lengths", "cause", "fix"),
    [
        ([[1, 2, -100]], [3], "ignore-index", "labels.masked_select(mask) with target_lengths=mask.sum(-1)"),
        ([[1, -1, -100]], [3], "ignore-index", "labels != -100"),
        ([[1, 2, -1]], [3], "padding", "target_lengths = (labels >= 0).sum(-1)"),
        ([1, -2, 3], [2, 1], "padding", "pad with -100"),
    ],
)
def test_fires(targets: Any, target_lengths: list[int], cause: str, fix: str) -> None:
    (verdict,) = diagnose(targets, target_lengths)
    assert (verdict.code, verdict.cause, verdict.root.severity) == ("CTC202", cause, "error")
    assert fix in verdict.root.fix
    assert "labels must be ≥ 0" in verdict.root.message


def test_a_tail_of_padding_is_one_verdict_although_its_repeats_need_frames() -> None:
    (verdict,) = diagnose([[1, 2] + [-100] * 6], [8])
    assert [finding.code for finding in verdict.findings()] == ["CTC202", "CTC301"]


def test_utterances() -> None:
    (verdict,) = diagnose([[1, 2, 3], [1, -1, -1], [1, 2, -1]], [3, 3, 3])
    assert [u.index for u in verdict.root.utterances] == [1, 2]
    assert verdict.root.utterances[0].note == "2 labels below 0: labels[1] = -1, labels[2] = -1"
    assert verdict.root.message.startswith("2 of 3 utterances hold labels down to -1")


@pytest.mark.parametrize("lowest", [math.nan, -1.0])
def test_nan_fires(lowest: float) -> None:
    finding = NegativeLabel().check(Readings({"negative_labels": np.asarray([0, math.nan]), "label_min": lowest}))
    assert finding is not None
    assert (finding.cause, list(finding.affected)) == ("padding", [1])


def test_it_must_be_on_disk_before_the_loss_is_called() -> None:
    assert NegativeLabel.unsafe
