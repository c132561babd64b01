"""``ctcguard explain`` and ``ctcguard rules``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ctcguard import cli
from ctcguard.rules import ALL

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    "text",
    ["CTC402", "ctc402", "402", " 402 ", "unnormalised-log-probs", "Unnormalised_Log_Probs", "UNNORMALISED-LOG-PROBS"],
)
def test_explain(capsys: Captured, text: str) -> None:
    assert cli.main(["explain", text]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("# CTC402 unnormalised-log-probs\n\n## What it does\n\nChecks that the classes")
    assert "\n```pycon\n>>> ctcguard.diagnose(" in out
    assert "\n    " not in out.split("```")[0]


def test_explain_on_a_terminal_is_typeset(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli.main(["explain", "402"]) == 0
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "What it does" in out
    assert "## What it does" not in out
    assert ">>> ctcguard.diagnose(" in out


def test_the_table_of_rules(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli.main(["rules"]) == 0
    header, *lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert header.split() == ["code", "name", "severity", "what", "it", "checks"]
    assert [line.split()[:3] for line in lines if line.startswith("CTC")] == [
        [rule.code, rule.name(), rule.severity.value] for rule in ALL
    ]
    assert "Checks that every utterance has a frame for each label" in "\n".join(lines)


def test_the_rules_in_a_pipe_are_a_line_each(capsys: Captured) -> None:
    assert cli.main(["rules"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[:3] for row in rows] == [[rule.code, rule.name(), rule.severity.value] for rule in ALL]
    assert all(len(row) == 4 for row in rows)


def test_rules_as_json(capsys: Captured) -> None:
    assert cli.main(["rules", "--json"]) == 0
    records = {record["code"]: record for record in json.loads(capsys.readouterr().out)}
    assert list(records) == [rule.code for rule in ALL]
    record = records["CTC402"]
    assert record["name"] == "unnormalised-log-probs"
    assert record["severity"] == "error"
    assert "probabilities" in record["causes"]
    assert "CTC501" in record["explains"]
    assert record["summary"].startswith("Checks that the classes of every sampled valid frame sum to 1")
    limit = {threshold["name"]: threshold for threshold in record["thresholds"]}["float32_nats"]
    assert limit["default"] == 0.001
    assert "float32" in limit["description"]


def test_every_rule_has_a_summary_and_described_thresholds(capsys: Captured) -> None:
    cli.main(["rules", "--json"])
    for record in json.loads(capsys.readouterr().out):
        assert record["summary"].startswith("Checks"), record["code"]
        assert all(threshold["description"] for threshold in record["thresholds"]), record["code"]


def test_pages_are_written_and_compared(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "docs" / "rules"
    command = ["rules", "--docs", str(folder)]
    assert cli.main([*command, "--check"]) == 1
    assert not folder.exists()
    assert cli.main(command) == 0
    assert sorted(file.name for file in folder.iterdir()) == [f"{rule.code}-{rule.name()}.md" for rule in ALL]
    capsys.readouterr()
    assert cli.main([*command, "--check"]) == 0
    assert capsys.readouterr() == ("", "")


def test_stale_pages_are_named(tmp_path: Path, capsys: Captured) -> None:
    command = ["rules", "--docs", str(tmp_path)]
    cli.main(command)
    changed, missing, old = (
        tmp_path / f"{name}.md" for name in ("CTC402-unnormalised-log-probs", "CTC501-negative-loss", "CTC999-old")
    )
    changed.write_text("# mine\n")
    missing.unlink()
    old.touch()
    capsys.readouterr()
    assert cli.main([*command, "--check"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"ctcguard: not up to date: {changed}, {missing}, {old}; ")
    assert changed.read_text() == "# mine\n"
