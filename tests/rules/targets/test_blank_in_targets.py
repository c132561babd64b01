"""CTC203."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ctcguard
from ctcguard.readings import Readings
from ctcguard.rules.targets.blank_in_targets import BlankInTargets
from ctcguard.verdict import Verdict
from ctcguard.vocabulary import Vocabulary


def diagnose(targets: Any, target_lengths: list[int], blank: int = 0, **more: Any) -> tuple[Verdict, ...]:
    batch = len(target_lengths)
    call = {"targets": targets, "input_lengths": [20] * batch, "target_lengths": target_lengths, "blank": blank}
    return ctcguard.diagnose(log_probs=np.log(np.full((batch, 20, 5), 0.2)), **call, **more)


@pytest.mark.parametrize(
    ("targets", "target_lengths", "blank"),
    [
        ([[1, 2, 0, 0]], [2], 0),  # the blank is the padding
        ([[0, 1, 2]], [3], 4),  # the blank is the last class
        ([[1, 2, 3, 4], [1, 0, 0, 0]], [4, 1], 0),
        ([1, 2, 3], [2, 1], 0),
    ],
)
def test_healthy(targets: Any, target_lengths: list[int], blank: int) -> None:
    assert diagnose(targets, target_lengths, blank) == ()


@pytest.mark.parametrize(
    ("targets", "target_lengths", "vocabulary", "cause", "fix"),
    [
        ([[1, 2, 0, 0]], [4], None, "padding-counted", "target_lengths = (targets != 0).sum(-1)"),
        ([1, 2, 0, 3], [3, 1], None, "padding-counted", "count real labels only"),
        ([[1, 2, 0, 0]], [4], ["<pad>", *"abcd"], "padding-counted", "count real labels only"),
        ([[1, 0, 2]], [3], None, "blank-index", "one class more, and blank=5; insert no blanks by hand"),
        ([[0, 1, 2]], [3], ["<pad>", *"abcd"], "blank-index", "blank=5"),
        ([[1, 2, 0, 0], [1, 0, 1, 2]], [4, 4], None, "blank-index", "blank=5"),
        ([[1, 0, 2]], [3], [" ", *"abcd"], "space-is-blank", "one class more, and blank=5"),
        ([[1, 2, 0]], [3], ["|", *"abcd"], "space-is-blank", "blank=5"),
        ([[1, 2, 0]], [3], list("abcde"), "blank-index", "blank=5"),  # ends with "a": no padding
        ([[1, 2, 0]], [3], [*"abcd", "<blank>"], "blank-index", "pass blank=4, the blank of the list"),
    ],
)
def test_causes(targets: Any, target_lengths: list[int], vocabulary: Any, cause: str, fix: str) -> None:
    findings = [f for v in diagnose(targets, target_lengths, vocabulary=vocabulary) for f in v.findings()]
    finding = {f.code: f for f in findings}["CTC203"]
    assert (finding.cause, finding.severity) == (cause, "error")
    assert fix in finding.fix


def test_share_symbol_and_utterances() -> None:
    vocabulary = ["<pad>", *"abcd"]
    (verdict,) = diagnose([[1, 2, 3, 4], [1, 0, 0, 0], [1, 2, 0, 0], [1, 2, 3, 4]], [4] * 4, vocabulary=vocabulary)
    root = verdict.root
    assert root.message == "2 of 4 utterances (50%) hold the blank, 0 '<pad>', within their target_lengths"
    assert [u.index for u in root.utterances] == [1, 2]
    assert root.utterances[0].note.startswith("3 of 4 labels: labels[1] = 0 '<pad>', labels[2] = 0 '<pad>', ")


def test_the_wrong_blank_is_the_root_and_this_its_symptom() -> None:
    (verdict,) = diagnose([[1, 0, 2]], [3], vocabulary=["a", "b", "c", "d", "<blank>"])
    assert [finding.code for finding in verdict.findings()] == ["CTC102", "CTC203"]


def test_repeats_of_padding_are_a_symptom() -> None:
    (verdict,) = diagnose([[1, 2] + [0] * 12], [14])
    assert [finding.code for finding in verdict.findings()] == ["CTC203", "CTC301"]


@pytest.mark.parametrize(("blanks", "before"), [(math.nan, 0.0), (math.nan, math.nan), (1.0, math.nan)])
def test_nan_fires(blanks: float, before: float) -> None:
    values = {"blank_labels": blanks, "blanks_before_label": before, "target_lengths": math.nan}
    columns = {name: np.asarray([value]) for name, value in values.items()}
    finding = BlankInTargets().check(Readings({**columns, "blank": 0, "vocabulary": Vocabulary.of(["<pad>", "a"])}))
    assert finding is not None
    assert finding.cause == ("blank-index" if math.isnan(before) else "padding-counted")
