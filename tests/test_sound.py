"""Calls that pass at a glimpse: no rule would find fault with them, and usual calls do pass."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings

from ctcguard.call import CTCCall, ctc_call
from ctcguard.finding import Severity
from ctcguard.judge import facts, judge
from ctcguard.probes import contract
from ctcguard.readings import Readings
from ctcguard.rules import ALL
from ctcguard.sound import Given, glimpse, sound, sound_losses

RULES = [rule() for rule in ALL]
OF_RUNS = {"CTC207"}
"""What is found when a call is looked at in full, one in 17 at least: no slip of one call."""
USUAL = {
    "shape": (3, 20, 8), "blank": 0, "input_lengths": [20, 17, 12], "rows": [[1, 2, 2, 3], [4, 5], [7, 7, 1]],
    "concatenated": False, "kind": "int64", "given_blank": None,
}  # fmt: skip


@st.composite
def some(draw: st.DrawFn) -> dict[str, Any]:
    """Labels and lengths as they may come, right or wrong."""
    batch, frames, classes = draw(st.integers(0, 4)), draw(st.integers(0, 24)), draw(st.integers(0, 6))
    label = st.one_of(st.integers(1, max(1, classes - 1)), st.integers(1, max(1, classes - 1)), st.integers(-2, 8))
    return {
        "shape": (batch, frames, classes),
        "blank": draw(st.sampled_from([0, 0, 0, classes - 1, -1, 3])),
        "input_lengths": [
            draw(st.one_of(st.just(frames), st.integers(1, max(1, frames)), st.integers(-1, 30))) for _ in range(batch)
        ],
        "rows": [draw(st.lists(label, max_size=6)) for _ in range(batch)],
        "concatenated": draw(st.booleans()),
        "kind": draw(st.sampled_from(["int64", "int32", "int16", "float64"])),
        "given_blank": draw(st.sampled_from([None, None, "between", "behind"])),
        "off": draw(st.sampled_from([0, 0, 0, 1, -1, 3])),
    }


def made(kind: dict[str, Any]) -> tuple[Given, CTCCall]:
    """The call, and what a glimpse sees of it."""
    rows, blank = kind["rows"], kind["blank"]
    counts = np.asarray([len(row) for row in rows], kind["kind"])
    if counts.size:
        counts[0] += kind.get("off", 0)
    room = max(map(len, rows), default=0)
    table = np.zeros((len(rows), room), kind["kind"])
    for row, labels in zip(table, rows, strict=True):
        row[: len(labels)] = labels
    targets = np.asarray([label for row in rows for label in row], kind["kind"]) if kind["concatenated"] else table
    before = None
    if kind["given_blank"] and room:
        before = np.where(np.arange(room) < np.asarray([[len(row)] for row in rows]), table, -100).astype(np.int64)
        before[:, room // 2 if kind["given_blank"] == "between" else -1] = blank
    lengths = np.asarray(kind["input_lengths"], kind["kind"])
    seen = Given(kind["shape"], targets, lengths, counts, blank, before)
    scores = np.zeros(kind["shape"])
    labels = {"targets": targets, "input_lengths": lengths, "target_lengths": counts, "given_labels": before}
    return seen, ctc_call(log_probs=scores, **labels, blank=blank, framework="torch")


@settings(max_examples=6 * settings().max_examples)
@given(some())
@example(USUAL)
@example(USUAL | {"concatenated": True})
def test_no_rule_finds_fault_with_a_call_that_passes(kind: dict[str, Any]) -> None:
    seen, call = made(kind)
    found = glimpse(seen)
    if found is None:
        return
    measured = contract(call)
    told = judge(RULES, Readings({**facts(call), **measured})).findings
    assert {finding.code for finding in told if finding.severity is not Severity.INFORMATION} <= OF_RUNS
    assert found["adjacent_repeats"]() == measured["adjacent_repeats"].tolist()
    assert found["label_max"] == measured["label_max"]
    listed = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in measured.items()}
    assert sound({**facts(call), **listed})


@pytest.mark.parametrize("change", [
    {}, {"concatenated": True}, {"kind": "int32"}, {"blank": 6},
    {"given_blank": "behind", "blank": 6, "rows": [[1, 2]] * 3},
    {"input_lengths": [20, 20, 20]}, {"rows": [[1], [], [2]]}, {"input_lengths": [15, 11, 3], "rows": [[1], [2], [3]]},
])  # fmt: skip
def test_usual_calls_pass(change: dict[str, Any]) -> None:
    found = glimpse(made(USUAL | change)[0])
    if change.get("given_blank"):
        assert found is None  # blanks among the labels as given: perhaps one was removed
    else:
        assert found is not None


@pytest.mark.parametrize("change", [
    {"blank": 8}, {"blank": 1}, {"rows": [[1], [8], [2]]}, {"rows": [[1], [-1], [2]]}, {"input_lengths": [21, 3, 3]},
    {"input_lengths": [20, 17, 3]}, {"input_lengths": [20, 17, 0], "rows": [[1], [2], []]}, {"off": 1},
    {"kind": "float64"},
    {"input_lengths": [9, 8, 7], "rows": [[1], [2], [3]]}, {"rows": [[], [], []]},
])  # fmt: skip
def test_doubtful_calls_do_not(change: dict[str, Any]) -> None:
    assert glimpse(made(USUAL | change)[0]) is None
    assert glimpse(made(USUAL | change | {"concatenated": True})[0]) is None


def test_losses() -> None:
    assert sound_losses([1e-7, 300.0])
    for loss in (0.0, -1e-9, float("nan"), float("inf")):
        assert not sound_losses([1.0, loss])
        assert not sound_losses([loss, 1.0])
    assert not sound_losses([])
