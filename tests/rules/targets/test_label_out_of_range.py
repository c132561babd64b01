"""CTC201."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ctcguard
from ctcguard.readings import Readings
from ctcguard.rules.targets.label_out_of_range import LabelOutOfRange
from ctcguard.verdict import Verdict
from ctcguard.vocabulary import Vocabulary

CLASSES = 4


def diagnose(targets: Any, target_lengths: list[int], **more: Any) -> tuple[Verdict, ...]:
    batch = len(target_lengths)
    log_probs = np.log(np.full((batch, 9, CLASSES), 1 / CLASSES))
    call = {"log_probs": log_probs, "targets": targets, "input_lengths": [9] * batch, "target_lengths": target_lengths}
    return ctcguard.diagnose(**call, blank=0, **more)


@pytest.mark.parametrize(
    ("targets", "target_lengths"),
    [
        ([[1, 3]], [2]),
        ([[1, 9]], [1]),  # beyond the length: padding
        ([1, 3, 2], [2, 1]),  # in one row
        (np.asarray([[1.0, 3.0]]), [2]),  # Keras has float targets
        (np.asarray([[1, 3]], dtype=np.int32), [2]),
    ],
)
def test_healthy(targets: Any, target_lengths: list[int]) -> None:
    assert diagnose(targets, target_lengths) == ()


@pytest.mark.parametrize(
    ("targets", "target_lengths", "vocabulary", "cause", "fix"),
    [
        ([[1, 4]], [2], None, "no-class-for-blank", "widen the head to at least 5 outputs, not 4"),
        ([[1, 4]], [2], list("abcd"), "no-class-for-blank", "vocab_size=len(tokenizer)"),
        ([[1, 5]], [2], None, "label-beyond-head", "vocab_size=len(tokenizer): at least 6 classes, not 4"),
        ([[1, 5]], [2], ["<pad>", *"abc"], "label-beyond-head", "encode the texts with this list, or give the head"),
        ([[1, 4]], [2], ["<pad>", *"abc"], "label-beyond-head", "at least 5 classes"),
        ([2, 3, 7], [2, 1], None, "label-beyond-head", "at least 8 classes"),
        (np.asarray([[1.0, 7.0]]), [2], None, "label-beyond-head", "at least 8 classes"),
    ],
)
def test_fires(targets: Any, target_lengths: list[int], vocabulary: Any, cause: str, fix: str) -> None:
    verdict = {v.code: v for v in diagnose(targets, target_lengths, vocabulary=vocabulary)}["CTC201"]
    assert (verdict.cause, verdict.root.severity) == (cause, "error")
    assert fix in verdict.root.fix
    assert "the head has 4 classes (0 … 3)" in verdict.root.message


def test_head_too_narrow_is_said_by_ctc101_where_the_vocabulary_is_known() -> None:
    (verdict,) = diagnose([[1, 5]], [2], vocabulary=["<pad>", *"abcdef"])
    assert verdict.code == "CTC101"
    assert (verdict.also[0].code, verdict.also[0].cause) == ("CTC201", "head-too-narrow")
    assert "at least 7 classes, not 4" in verdict.also[0].fix


def test_the_user_of_a_tokenizer_reads_what_to_write() -> None:
    vocabulary = Vocabulary({i: chr(97 + i) for i in range(6)}, 6, 0)
    values = {"out_of_range_labels": np.asarray([1.0]), "label_max": 5.0, "classes": 4, "vocabulary": vocabulary}
    finding = LabelOutOfRange().check(Readings(values))
    assert finding is not None
    assert finding.cause == "head-too-narrow"
    assert finding.fix.startswith("build the head with vocab_size=len(tokenizer), at least 6 classes, not 4")


def test_utterances_are_named_worst_first_and_at_most_five() -> None:
    targets = [[1, 2], [7, 1], [8, 9], *[[7, 1]] * 5]
    (verdict,) = diagnose(targets, [2] * 8, utterance_ids=tuple(f"clip-{i}" for i in range(8)))
    root = verdict.root
    assert root.message.startswith("7 of 8 utterances hold labels up to 9")
    assert [u.id for u in root.utterances] == ["clip-2", "clip-1", "clip-3", "clip-4", "clip-5"]
    assert root.utterances[0].note == "2 labels ≥ 4: labels[0] = 8, labels[1] = 9"
    assert root.utterances[1].note == "1 label ≥ 4: labels[0] = 7"
    assert len(root.affected) == 7


def test_the_symbol_is_named() -> None:
    verdict = diagnose([[4, 5, 6, 7]], [4], vocabulary=["<pad>", *"abcdefg"])[0]
    assert verdict.also[0].utterances[0].note.endswith(": labels[0] = 4 'd', labels[1] = 5 'e', labels[2] = 6 'f' …")


@pytest.mark.parametrize(("counts", "label_max"), [([math.nan], 3.0), ([0.0, math.nan], math.nan)])
def test_nan_fires(counts: list[float], label_max: float) -> None:
    values = {"out_of_range_labels": np.asarray(counts), "label_max": label_max, "classes": CLASSES}
    finding = LabelOutOfRange().check(Readings(values))
    assert finding is not None
    assert finding.affected == {len(counts) - 1}


def test_it_must_be_on_disk_before_the_loss_is_called() -> None:
    assert LabelOutOfRange.unsafe
