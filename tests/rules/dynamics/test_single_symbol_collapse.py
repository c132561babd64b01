"""CTC702 on hand-made histories: first what must stay silent."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ctcguard.finding import Finding
from ctcguard.history import CALLS
from ctcguard.rules.dynamics.single_symbol_collapse import SingleSymbolCollapse
from ctcguard.vocabulary import Vocabulary
from tests.rules.dynamics.histories import collapsed, history, readings

FOUR = {"top_class": 4.0, "blank_fraction": 0.0}


def check(
    calls: int = CALLS,
    last_step: int = 2000,
    blank: int = 0,
    vocabulary: Any = None,
    rule: SingleSymbolCollapse | None = None,
    **other: Any,
) -> Finding | None:
    known = {} if vocabulary is None else {"vocabulary": Vocabulary.of(vocabulary)}
    columns = collapsed(calls, last_step, **(FOUR | other))
    return (rule or SingleSymbolCollapse()).check(readings(columns, **(known | {"blank": blank})))


HEALTHY: dict[str, dict[str, Any]] = {
    "the blank: that is CTC701": {"top_class": 0.0},
    "the last class, which is the blank": {"top_class": 28.0, "blank": 28},
    "other symbols win as well": {"top_fraction": 0.97},
    "once": {"top_fraction": np.where(np.arange(CALLS) == 5, 0.5, 1.0)},
    "another one before": {"top_class": np.repeat([3.0, 4.0], CALLS // 2)},
    "all transcripts are that symbol": {"constant_ratio": 0.1},
    "falling": {"constant_ratio": np.linspace(0.92, 0.88, CALLS)},
    "uniform: that is CTC703": {"uniform_ratio": 1.0, "constant_ratio": 5.0},
    "nothing measured": {"top_class": math.nan, "top_fraction": math.nan},
    "no losses": {"constant_ratio": math.nan},
    "early": {"last_step": 1999},
    "few calls": {"calls": CALLS - 1},
}


@pytest.mark.parametrize("case", HEALTHY)
def test_healthy(case: str) -> None:
    assert check(**HEALTHY[case]) is None


@pytest.mark.parametrize(("share", "fires"), [(0.98, True), (0.9799, False)])
def test_threshold(share: float, fires: bool) -> None:
    assert (check(top_fraction=share) is not None) == fires
    assert check(top_fraction=share, rule=SingleSymbolCollapse(top_fraction=0.9)) is not None


def test_over_budget_one_call_in_sixteen_is_enough() -> None:
    measured = np.where(np.arange(CALLS) % 16, math.nan, 1.0)
    assert check(top_class=4 * measured, top_fraction=measured) is not None


LIST = ["<blank>", "a", "b", "c", "|"]
UNDECLARED = ["a", "b", "c", "d", "-"]


@pytest.mark.parametrize(
    ("other", "cause", "evidence", "fix"),
    [
        ({}, "constant-output", "frames enough", "one batch alone"),
        ({"vocabulary": LIST}, "constant-output", "frames enough", "one batch alone"),
        ({"labels": 80.0}, "few-frames", "1.2 frames a label", "subsample by less"),
        ({"constant_ratio": 3.0}, "far-out", "33%", "ten times lower"),
        (
            {"vocabulary": LIST, "top_class": 0.0, "blank": 4},
            "blank-index",
            "0 '<blank>' is the blank of the list, but the loss takes 4 '|' for it",
            "pass blank=0 to the loss",
        ),
        (
            {"vocabulary": UNDECLARED},
            "blank-index",
            "4 '-' is the blank of the list, but the loss takes 0 'a' for it",
            "pass blank=4 to the loss",
        ),
        ({"vocabulary": 5}, "constant-output", "frames enough", "one batch alone"),  # only the number is known
        ({"vocabulary": LIST, "top_class": 7.0}, "constant-output", "frames enough", "one batch alone"),
    ],
)
def test_causes(other: dict[str, Any], cause: str, evidence: str, fix: str) -> None:
    found = check(**other)
    assert found is not None
    assert (found.code, found.severity, found.cause) == ("CTC702", "warning", cause)
    assert evidence in found.evidence
    assert fix in found.fix


def test_message() -> None:
    found = check(vocabulary=LIST, top_fraction=np.linspace(0.985, 1, CALLS))
    assert found is not None
    assert found.message == (
        "several symbols must win frames, but in the last 1024 training calls (steps 977 to 2000) symbol 4 '|' won "
        "98.5% or more of them; the loss stood still at 57 nats an utterance, 0.90 times the least that an output "
        "which never changes can reach when all labels are equally frequent"
    )


def test_nothing_remembered() -> None:
    assert SingleSymbolCollapse().check(readings(history(0))) is None
