"""CTC104."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ctcguard.finding import Finding
from ctcguard.readings import Readings
from ctcguard.rules.vocabulary.config_disagrees_with_head import ConfigDisagreesWithHead
from ctcguard.vocabulary import Vocabulary


def check(config: float, classes: float, vocabulary: Any = None) -> Finding | None:
    known = {} if vocabulary is None else {"vocabulary": Vocabulary.of(vocabulary)}
    return ConfigDisagreesWithHead().check(Readings({"config_vocab_size": config, "classes": classes, **known}))


def test_healthy() -> None:
    assert check(32, 32) is None
    assert check(32, 32, vocabulary=34) is None  # CTC101's


@pytest.mark.parametrize(
    ("config", "classes", "cause", "effect"),
    [
        (33, 32, "config-wider-than-head", "lets labels from 32 on pass, although the head has no class for them"),
        (31, 32, "config-narrower-than-head", "refuses labels from 31 on, although the head has classes for them"),
        (math.nan, 32, "config-wider-than-head", "config.vocab_size is nan"),
        (32, math.nan, "config-wider-than-head", "the head has nan classes"),
    ],
)
def test_fires(config: float, classes: float, cause: str, effect: str) -> None:
    finding = check(config, classes)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC104", cause, "warning")
    assert effect in finding.message
    assert "vocab_size=len(tokenizer)" in finding.fix
    assert f"model.config.vocab_size = {classes:.0f}" in finding.fix


def test_the_vocabulary_tells_which_of_the_two_is_right() -> None:
    right, wrong = check(64, 32, vocabulary=32), check(64, 32, vocabulary=40)
    assert right is not None
    assert right.fix.startswith("set model.config.vocab_size = 32")
    assert wrong is not None
    assert wrong.fix.startswith("build head and config together")
