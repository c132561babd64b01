"""CTC103."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ctcguard
from ctcguard.readings import Readings
from ctcguard.rules.vocabulary.blank_out_of_range import BlankOutOfRange
from ctcguard.vocabulary import Vocabulary


@pytest.mark.parametrize("blank", [0, 3])
def test_healthy(blank: int) -> None:
    assert BlankOutOfRange().check(Readings({"classes": 4, "blank": blank})) is None


@pytest.mark.parametrize(
    ("blank", "classes", "cause", "fix"),
    [
        (4, 4, "no-class-for-blank", "widen the head by one: 5 outputs"),
        (5, 4, "blank-beyond-head", "at least 6 classes"),
        (-1, 4, "negative", "count from 0: blank=3 if it is the last class"),
        (-100, 4, "negative", "blank=0 if it is the first"),
        (math.nan, 4, "blank-beyond-head", "index"),
        (0, math.nan, "blank-beyond-head", "index"),
    ],
)
def test_fires(blank: float, classes: float, cause: str, fix: str) -> None:
    finding = BlankOutOfRange().check(Readings({"classes": classes, "blank": blank}))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC103", cause, "error")
    assert f"the blank is {blank:.0f}, but the head has {classes:.0f} classes" in finding.message
    assert fix in finding.fix


@pytest.mark.parametrize(("vocabulary", "fix"), [(["<pad>", "a"], "pass blank=0"), (["a", "<pad>"], "widen the head")])
def test_the_blank_of_the_vocabulary_is_offered_where_the_head_has_it(vocabulary: list[str], fix: str) -> None:
    known = {"classes": 1, "blank": 1, "vocabulary": Vocabulary.of(vocabulary)}
    finding = BlankOutOfRange().check(Readings(known))
    assert finding is not None
    assert fix in finding.fix


def test_end_to_end() -> None:
    log_probs = np.log(np.full((1, 9, 4), 0.25))
    call = {"log_probs": log_probs, "targets": [[1, 2]], "input_lengths": [9], "target_lengths": [2]}
    assert ctcguard.diagnose(**call, blank=3) == ()
    (verdict,) = ctcguard.diagnose(**call, blank=4)
    assert (verdict.code, verdict.cause, verdict.also) == ("CTC103", "no-class-for-blank", ())
