"""CTC303."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import ctcguard
from ctcguard.finding import Finding
from ctcguard.probes.paddings import padding_faults
from ctcguard.readings import Readings
from ctcguard.rules.lengths.target_length_out_of_range import TargetLengthOutOfRange


def check(lengths: list[float], room: float, concatenated: bool, framework: str = "") -> Finding | None:
    known = {"target_lengths": np.asarray(lengths, dtype=float), "label_room": room, "concatenated": concatenated}
    return TargetLengthOutOfRange().check(Readings({**known, "framework": framework}))


@pytest.mark.parametrize(
    ("lengths", "room", "concatenated", "framework"),
    [
        ([3, 0, 2], 3, False, "torch"),
        ([2, 1], 9, False, "torch"),  # a static width
        ([0, 0], 0, False, "torch"),
        ([3, 0, 2], 5, True, "torch"),
        ([3], 3, True, "torch"),
        ([3], 5, True, ""),  # one utterance: what is over is padding
    ],
)
def test_healthy(lengths: list[float], room: float, concatenated: bool, framework: str) -> None:
    assert check(lengths, room, concatenated, framework) is None


@pytest.mark.parametrize(
    ("lengths", "room", "concatenated", "cause", "fix"),
    [
        ([4, 2], 3, False, "beyond-buffer", "from the same lists of labels"),
        ([math.nan, 2], 3, False, "beyond-buffer", "from the same lists of labels"),
        ([2, 2], math.nan, False, "beyond-buffer", "from the same lists of labels"),
        ([4, -1], 3, False, "negative", "from the same lists of labels"),
        ([4, -1], 3, True, "negative", "from the same lists of labels"),
        ([3, 2], 4, True, "sum-mismatch", "DataParallel"),
        ([3, 2], 6, True, "sum-mismatch", "pass them as (2, 3), not flattened"),
        ([3, 2], 7, True, "sum-mismatch", "torch.cat(rows)"),
        ([3, 1], 4.0 + 1e-9, True, "sum-mismatch", "torch.cat(rows)"),
        ([math.nan, 2], 5, True, "sum-mismatch", "torch.cat(rows)"),
        ([5], 3, True, "sum-mismatch", "torch.cat(rows)"),
    ],
)
def test_fires(lengths: list[float], room: float, concatenated: bool, cause: str, fix: str) -> None:
    finding = check(lengths, room, concatenated)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC303", cause, "error")
    assert fix in finding.fix


def test_torch_itself_refuses_a_row_that_is_too_long() -> None:
    targets, frames, labels = torch.tensor([1, 2, 3, 1, 1]), torch.tensor([9]), torch.tensor([3])
    with pytest.raises(RuntimeError, match="Expected tensor to have size 3"):
        torch.nn.functional.ctc_loss(torch.zeros(9, 1, 4), targets, frames, labels)
    finding = check([3], 5, True, "torch")
    assert finding is not None
    assert finding.message == "target lengths add up to 3, but there are 5 labels in one row"


def test_utterances_are_named_where_they_are_known() -> None:
    padded, joined = check([4, 2, 5], 3, False), check([4, 2, 5], 3, True)
    assert padded is not None
    assert joined is not None
    assert [u.note for u in padded.utterances] == ["target length 4 of 3", "target length 5 of 3"]
    assert padded.message == "target lengths must be in 0 … 3 (padded labels), 2 of 3 are not"
    assert joined.affected == frozenset()


def test_counted_padding_is_its_symptom() -> None:
    call = {"log_probs": np.log(np.full((2, 9, 4), 0.25)), "input_lengths": [9, 9], "blank": 0}
    assert ctcguard.diagnose(**call, targets=[[1, 2, 0], [1, 2, 3]], target_lengths=[2, 3]) == ()
    (verdict,) = ctcguard.diagnose(**call, targets=[[1, 2, 0], [1, 2, 3]], target_lengths=[4, 3])
    assert [finding.code for finding in verdict.findings()] == ["CTC303", "CTC203"]
    (verdict,) = ctcguard.diagnose(**call, targets=[1, -100, 3, 2], target_lengths=[1, 2])
    assert [finding.code for finding in verdict.findings()] == ["CTC303", "CTC202"]


def of_paddings(*rows: str, labels: str = "1234") -> Finding | None:
    """For a loss that takes paddings: 1 where a label is padding, one string for each utterance."""
    paddings = np.asarray([[float(mark) for mark in row] for row in rows])
    batch, room = paddings.shape
    targets = np.tile([int(label) for label in labels], (batch, 1))
    known = padding_faults(np.zeros((batch, 9)), paddings, targets)
    counts = {"target_lengths": room - paddings.sum(axis=1), "label_room": room, "concatenated": False}
    return TargetLengthOutOfRange().check(Readings({**known, **counts}))


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (("0000", "0011", "0111"), "1234"),
        (("0011", "0111"), "1234"),  # a static width
        (("0000", "1111"), "1234"),  # one utterance of silence
        (("1111", "1111"), "0000"),  # nothing but silence, and its padding looks like padding
    ],
    ids=["padded at the end", "none is full", "one is empty", "all are empty"],
)
def test_paddings_at_the_end_are_healthy(rows: tuple[str, ...], labels: str) -> None:
    assert of_paddings(*rows, labels=labels) is None


@pytest.mark.parametrize(
    ("rows", "cause", "evidence", "fix"),
    [
        (("1111", "1100", "1000"), "inverted-paddings", "2 of 3 utterances begin with padding", "1.0 - mask"),
        (("0000", "1000"), "inverted-paddings", "1 of 2 utterances begin with padding", "where a label is padding"),
        (("1111", "1111"), "all-padding", "padding differs in 2 utterances", "paddings = 1.0 - mask"),
        (("0000", "0100"), "not-right-padded", "labels of 1 of 2 utterances", "to the front, with padding behind"),
        (("1000", "0100"), "not-right-padded", "labels of 2 of 2 utterances", "to the front, with padding behind"),
    ],
)
def test_paddings_elsewhere(rows: tuple[str, ...], cause: str, evidence: str, fix: str) -> None:
    finding = of_paddings(*rows)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC303", cause, "error")
    assert evidence in finding.evidence
    assert fix in finding.fix


def test_misplaced_paddings_are_named_worst_first() -> None:
    finding = of_paddings("0000", "1000", "1110")
    assert finding is not None
    assert ([u.index for u in finding.utterances], finding.affected) == ([2, 1], {1, 2})


def test_a_padding_count_of_nan_fires() -> None:
    known = {"padded_first_labels": np.asarray([0.0, math.nan]), "starts_padded_labels": np.zeros(2)}
    counts = {"target_lengths": np.asarray([2.0, 3.0]), "label_room": 3, "concatenated": False}
    finding = TargetLengthOutOfRange().check(Readings({**known, **counts}))
    assert finding is not None
    assert finding.cause == "not-right-padded"
