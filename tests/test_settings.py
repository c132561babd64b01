"""Where settings come from, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctcguard.errors import SettingsError
from ctcguard.finding import Severity
from ctcguard.settings import load

PYPROJECT = '[tool.ctcguard]\non_error = "alert"\non_warning = "log"\nignore = ["CTC204"]\n'


def test_defaults() -> None:
    settings = load()
    assert (settings.on_error, settings.on_warning, settings.budget) == ("raise", "alert", 0.01)
    assert len(settings.rules()) >= 25


def test_keywords_beat_environment_beats_pyproject(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pyproject.toml").write_text(PYPROJECT)
    assert (load().on_error, load().on_warning, load().ignore) == ("alert", "log", ("CTC204",))
    monkeypatch.setenv("CTCGUARD_ON_ERROR", "stop")
    assert (load().on_error, load().on_warning) == ("stop", "log")
    assert load(on_error="raise").on_error == "raise"


@pytest.mark.parametrize(("name", "value", "field", "read"), [
    ("CTCGUARD_SELECT", "CTC4,CTC201", "select", ("CTC4", "CTC201")),
    ("CTCGUARD_IGNORE", "unnormalised-log-probs", "ignore", ("CTC402",)),
    ("CTCGUARD_RUN_DIR", "somewhere", "run_dir", Path("somewhere")),
    ("CTCGUARD_STRICT", "1", "strict", True),
    ("CTCGUARD_BUDGET", "0.05", "budget", 0.05),
    ("CTCGUARD_BUDGET", "none", "budget", None),
    ("CTCGUARD_THRESHOLDS", '{"CTC402": {"hint_nats": 0.5}}', "thresholds", {"CTC402": {"hint_nats": 0.5}}),
    ("CTCGUARD_SINKS", "none", "sinks", "none"),
])  # fmt: skip
def test_the_environment(monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, read: Any) -> None:
    monkeypatch.setenv(name, value)
    assert getattr(load(), field) == read


SELECTIONS: list[tuple[dict[str, Any], str, bool]] = [
    ({}, "CTC402", True),
    ({"ignore": "CTC4"}, "CTC402", False),
    ({"ignore": "CTC4"}, "CTC301", True),
    ({"ignore": "CTC4", "select": ("CTC", "CTC402")}, "CTC402", True),
    ({"select": "CTC3"}, "CTC402", False),
    ({"select": "CTC402", "ignore": "CTC402"}, "CTC402", False),
    ({"ignore": ["too-few-frames"]}, "CTC301", False),
    ({"ignore": "ctc301"}, "CTC301", False),
]


@pytest.mark.parametrize(("keywords", "code", "on"), SELECTIONS)
def test_the_longest_match_wins(keywords: dict[str, Any], code: str, on: bool) -> None:
    assert (code in {rule.code for rule in load(**keywords).rules()}) is on


def test_thresholds_reach_the_rule_by_name_and_by_code() -> None:
    for key in ("unnormalised-log-probs", "CTC402", "402"):
        (rule,) = [rule for rule in load(thresholds={key: {"hint_nats": 0.5}}).rules() if rule.code == "CTC402"]
        assert rule.hint_nats == 0.5  # type: ignore[attr-defined]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"on_eror": "raise"}, r"'on_eror' is no setting of ctcguard; the settings are: on_error, on_warning"),
    ({"on_error": "explode"}, r"on_error: Input should be 'raise', 'stop', 'alert' or 'log', not 'explode'"),
    ({"select": "CTC99"}, r"select: 'CTC99' is no rule; write a code, the beginning of one, or a name: CTC101"),
    ({"ignore": ("nonsense",)}, r"ignore: 'nonsense' is no rule"),
    ({"thresholds": {"CTC402": {"hint": 1}}}, r"thresholds of unnormalised-log-probs: hint: .*it has: float32_nats"),
    ({"thresholds": {"CTC402": {"hint_nats": "much"}}}, r"hint_nats: .*valid number"),
    ({"thresholds": {"no-such-rule": {}}}, r"'no-such-rule' is no rule of ctcguard; the rules are: CTC101"),
    ({"budget": 2}, r"budget: Input should be less than or equal to 1, not 2"),
    ({"sinks": "paper"}, r"sinks"),
    ({"vocabulary": 3.5}, r"vocabulary.*give a tokenizer or processor with get_vocab"),
]


@pytest.mark.parametrize(("keywords", "said"), WRONG)
def test_a_wrong_setting_gets_one_line_that_lists_the_legal_ones(keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        load(**keywords)
    assert "\n" not in str(caught.value)


def test_a_wrong_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTCGUARD_ON_EROR", "raise")
    with pytest.raises(SettingsError, match="environment variable CTCGUARD_ON_EROR is no setting of ctcguard; legal"):
        load()


ACTIONS = [
    ("error", "train", "raise"),
    ("error", "setup", "raise"),
    ("error", "eval", "alert"),
    ("warning", "train", "alert"),
    ("information", "train", "log"),
]


@pytest.mark.parametrize(("severity", "phase", "action"), ACTIONS)
def test_what_happens_on_a_finding(severity: str, phase: str, action: str) -> None:
    assert load().action(Severity(severity), phase) == action
