"""CTC302."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ctcguard
from ctcguard.finding import Finding
from ctcguard.probes.paddings import padding_faults
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


def of_paddings(*rows: str, labels: float = 2, **more: Any) -> Finding | None:
    """For a loss that takes paddings: 1 where a frame is padding, one string for each utterance."""
    paddings = np.asarray([[float(mark) for mark in row] for row in rows])
    batch, frames = paddings.shape
    known = padding_faults(paddings, np.zeros((batch, 2)), np.ones((batch, 2)))
    counts = {"input_lengths": frames - paddings.sum(axis=1), "target_lengths": np.full(batch, labels)}
    return InputLengthOutOfRange().check(Readings({**known, **counts, "frames": frames, **more}))


@pytest.mark.parametrize(
    "rows",
    [("0000", "0001", "0111"), ("0011", "0111"), ("0000", "0000")],
    ids=["padded at the end", "none is full", "no padding"],
)
def test_paddings_at_the_end_are_healthy(rows: tuple[str, ...]) -> None:
    assert of_paddings(*rows) is None


@pytest.mark.parametrize(
    ("rows", "cause", "severity", "evidence", "fix"),
    [
        (("1111", "1110", "1000"), "inverted-paddings", "error", "the longest would be padding only", "1.0 - mask"),
        (("1110", "1100"), "inverted-paddings", "warning", "2 of 2 utterances begin with padding", "1.0 - mask"),
        (("1111", "1111"), "all-padding", "error", "every frame of the batch", "paddings = 1.0 - mask"),
        (("0000", "0001", "0100"), "not-right-padded", "warning", "frames of 1 of 3 utterances", "pad utterances at"),
        (("1000", "0100"), "not-right-padded", "warning", "frames of 2 of 2 utterances", "pad utterances at the end"),
        (
            ("0000", "1000", "1100"),
            "not-right-padded",
            "information",
            "padded on the left",
            "pad utterances at the end",
        ),
    ],
)
def test_paddings_elsewhere(rows: tuple[str, ...], cause: str, severity: str, evidence: str, fix: str) -> None:
    finding = of_paddings(*rows)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC302", cause, severity)
    assert evidence in finding.evidence
    assert fix in finding.fix


LEFT = ("100000", "111000", "110000")
SHORT = ("111000", "111000", "111100")
"""None fills more than half of the time axis."""


def scores_change(padding: float, others: float, calls: int = 1) -> dict[str, Any]:
    """By how much from frame to frame, at which call of a training."""
    return {"leading_change": padding, "trailing_change": others, "length_history": ((6, 5),) * calls}


@pytest.mark.parametrize("rows", [LEFT, SHORT])
@pytest.mark.parametrize("calls", [0, 1, 9])
@pytest.mark.parametrize(("padding", "others"), [(0.0, 1e-6), (0.1, 1.0), (1.0, 2.01)])
def test_padding_that_is_quieter_than_the_rest_is_padding(
    rows: tuple[str, ...], calls: int, padding: float, others: float
) -> None:
    finding = of_paddings(*rows, **scores_change(padding, others, calls))
    assert finding is not None
    assert (finding.cause, finding.severity) == ("not-right-padded", "information")
    assert f"change by {padding:.2g} in the padding and by {others:.2g} behind it" in finding.evidence


@pytest.mark.parametrize("rows", [LEFT, SHORT])
@pytest.mark.parametrize(
    ("padding", "others", "calls"), [(1e-6, 0.0, 1), (1.0, 0.1, 1), (2.01, 1.0, 1), (10.1, 1.0, 2), (1.0, 0.0, 99)]
)
def test_frames_that_are_quieter_than_padding_are_the_padding(
    rows: tuple[str, ...], padding: float, others: float, calls: int
) -> None:
    finding = of_paddings(*rows, **scores_change(padding, others, calls))
    assert finding is not None
    assert (finding.cause, finding.severity) == ("inverted-paddings", "warning")
    assert f"change by {padding:.2g} in the padding and by {others:.2g} behind it; if you pad" in finding.evidence


NO_TELLING = [(1.0, 1.0), (0.0, 0.0), (2.0, 1.0), (1.0, 2.0), (math.nan, 1.0), (1.0, math.nan), (math.nan, math.nan)]


@pytest.mark.parametrize(("padding", "others"), NO_TELLING)
def test_where_nothing_tells_long_utterances_count_for_padding_on_the_left(padding: float, others: float) -> None:
    finding = of_paddings(*LEFT, **scores_change(padding, others))
    assert finding is not None
    assert (finding.cause, finding.severity) == ("not-right-padded", "information")
    assert "padded on the left, perhaps" in finding.evidence


@pytest.mark.parametrize(("padding", "others"), NO_TELLING)
def test_where_nothing_tells_short_utterances_count_for_inverted_paddings_at_first(
    padding: float, others: float
) -> None:
    first, later = (of_paddings(*SHORT, **scores_change(padding, others, calls)) for calls in (1, 2))
    assert first is not None
    assert (first.cause, first.severity) == ("inverted-paddings", "warning")
    assert "no more than 3 of 6 frames are left of any" in first.evidence
    assert later is not None
    assert (later.cause, later.severity) == ("not-right-padded", "information")


def test_later_a_model_that_says_blank_everywhere_is_no_proof() -> None:
    finding = of_paddings(*LEFT, **scores_change(9.9, 1.0, calls=2))
    assert finding is not None
    assert (finding.cause, finding.severity) == ("not-right-padded", "information")


@pytest.mark.parametrize("calls", [1, 9])
def test_labels_that_do_not_fit_count_for_inverted_paddings(calls: int) -> None:
    finding = of_paddings("100000", "111110", **scores_change(1.0, 1.0, calls))
    assert finding is not None
    assert (finding.cause, finding.severity) == ("inverted-paddings", "warning")
    assert "the labels of 1 do not fit into the frames that are left" in finding.evidence
    quiet = of_paddings("100000", "111110", **scores_change(0.0, 1.0, calls))
    assert quiet is not None
    assert (quiet.cause, quiet.severity) == ("not-right-padded", "information")


def test_misplaced_paddings_are_named_worst_first() -> None:
    finding = of_paddings("1110", "1000", "1111")
    assert finding is not None
    assert [u.index for u in finding.utterances] == [0, 1, 2]
    assert [u.note for u in finding.utterances][1:] == ["1 padded frames before others", "padding only"]
    assert finding.message == (
        "padding must stand at the end of the 4 frames, but frames follow after it in 2 of 3 utterances"
    )


def test_an_utterance_of_padding_only_is_no_inverted_padding() -> None:
    filling = of_paddings("0000", "1111", labels=0)
    assert filling is not None
    assert (filling.cause, filling.severity, filling.affected) == ("below-one", "information", {1})
    short = of_paddings("0000", "1111")
    assert short is not None
    assert (short.cause, short.severity) == ("below-one", "error")


def test_no_frame_at_all_is_all_padding_only_where_there_are_paddings() -> None:
    finding = check([0, 0], labels=[2, 2])
    assert finding is not None
    assert finding.cause == "below-one"


def test_a_padding_count_of_nan_fires() -> None:
    known = {"padded_first_frames": np.asarray([math.nan, 0.0]), "starts_padded_frames": np.asarray([1.0, 0.0])}
    lengths = {"input_lengths": np.asarray([3.0, 4.0]), "frames": 4}
    finding = InputLengthOutOfRange().check(Readings({**known, **lengths}))
    assert finding is not None
    assert finding.cause == "not-right-padded"
