"""CTC207."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ctcguard
from ctcguard.finding import Finding
from ctcguard.judge import facts
from ctcguard.readings import Readings
from ctcguard.rules.targets.padding_counted_as_labels import PaddingCountedAsLabels

SYMBOLS = ["<blank>", *"abcd", "<pad>"]
PADDED = [[1, 2, 3, 5, 5, 5, 5, 5], [4, 1, 5, 5, 5, 5, 5, 5], [2, 3, 4, 1, 5, 5, 5, 5]] + [[3, 5, 5, 5, 5, 5, 5, 5]] * 3
PRICES = [[1, 2, 3, 4, 4, 4], [2, 1, 4, 4, 4, 4], [3, 4, 4, 4, 4, 4], [1, 1, 1, 4, 4, 4]] * 3
"""In thousands; one in four is a multiple of 10,000, one of 100,000."""


def found(targets: list[list[int]], lengths: list[int] | None = None, vocabulary: Any = SYMBOLS) -> Finding | None:
    rows, batch = np.asarray(targets), len(targets)
    lengths = [rows.shape[1]] * batch if lengths is None else lengths
    call = {"targets": rows, "input_lengths": [60] * batch, "target_lengths": lengths, "blank": 0}
    verdicts = ctcguard.diagnose(log_probs=np.log(np.full((batch, 60, 6), 1 / 6)), vocabulary=vocabulary, **call)
    return next((f for v in verdicts for f in v.findings() if f.code == "CTC207"), None)


@pytest.mark.parametrize(
    ("targets", "lengths", "vocabulary"),
    [
        (PADDED, [3, 2, 4, 1, 1, 1], SYMBOLS),
        (PADDED[:1], None, SYMBOLS),  # one utterance
        ([[1, 2, 3], [2, 5, 5]], None, SYMBOLS),  # three labels
        ([[1, 2, 3, 4], [1, 2, 3, 4], [2, 5, 5, 5]], None, SYMBOLS),  # not all end alike
        ([[1, 2, 5, 5, 5], [2, 1, 5, 5, 5]], None, None),  # runs of one length: a suffix
        ([[1, 2, 4, 3, 4, 1], [2, 1, 4, 1, 1, 1]], None, None),  # codes that end in zeros
        (PRICES, None, None),
        (PRICES * 8, None, None),
        ([[1, 2, 0, 0, 0, 0], [2, 1, 3, 0, 0, 0]], None, SYMBOLS),  # the blank: CTC203
        ([[1, 2, 9, 9, 9, 9], [2, 1, 3, 9, 9, 9]], None, None),  # beyond the head: CTC201
    ],
)
def test_healthy_or_another_rules(targets: list[list[int]], lengths: list[int] | None, vocabulary: Any) -> None:
    assert found(targets, lengths, vocabulary) is None


@pytest.mark.parametrize(("vocabulary", "cause"), [(SYMBOLS, "padding-symbol"), (None, "buffer-length")])
def test_causes(vocabulary: Any, cause: str) -> None:
    finding = found(PADDED, vocabulary=vocabulary)
    assert finding is not None
    assert (finding.cause, finding.severity) == (cause, "error")
    assert "(targets != 5).sum(-1)" in finding.fix
    assert "all of them are 8, the width of the buffer" in finding.message
    assert finding.utterances[0].index == 3


def with_history(rooms: list[float], spread: float = 2.0, label: float = 4.0) -> Readings:
    targets = np.asarray([[1, 2, 3, 1, 2, 4], [1, 2, 3, 4, 4, 4]])
    call = ctcguard.ctc_call(
        log_probs=np.zeros((2, 30, 6)), targets=targets, input_lengths=[30, 30], target_lengths=[6, 6], blank=0
    )
    columns = {"target_lengths": np.asarray([6.0, 6.0]), "last_label": np.asarray([4.0, 4.0]), "transcript_room": 6.0}
    history = {
        "label_room": np.asarray(rooms),
        "tail_label": np.full(len(rooms), label),
        "tail_run_spread": np.full(len(rooms), spread),
    }
    return Readings({**facts(call), **columns, "tail_run": np.asarray([1.0, 3.0]), "history": history})


WIDTHS = [6.0, 9.0, 7.0, 8.0] * 4


def test_short_runs_need_batches_of_several_widths() -> None:
    assert PaddingCountedAsLabels().check(with_history([6.0] * 16)) is None
    assert PaddingCountedAsLabels().check(with_history(WIDTHS[:12])) is None
    assert PaddingCountedAsLabels().check(with_history(WIDTHS, spread=0.0)) is None
    assert PaddingCountedAsLabels().check(with_history(WIDTHS, label=float("nan"))) is None
    assert PaddingCountedAsLabels().check(with_history(WIDTHS)) is not None
