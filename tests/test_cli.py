from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from ctcguard import __version__, cli
from ctcguard.errors import MissingExtraError
from ctcguard.program import Program
from ctcguard.rules import ALL
from ctcguard.settings import Action

Captured = pytest.CaptureFixture[str]


def test_version(capsys: Captured) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr() == (f"ctcguard {__version__}\n", "")


@pytest.mark.parametrize("command", [[], ["run"], ["explain"], ["rules"], ["demo"]], ids=" ".join)
def test_help(capsys: Captured, command: list[str]) -> None:
    assert cli.main([*command, "--help"]) == 0
    assert "Usage: ctcguard" in capsys.readouterr().out


def test_the_values_of_on_error_are_those_of_the_settings() -> None:
    assert tuple(value.value for value in cli.OnError) == get_args(Action)


@pytest.mark.parametrize(
    ("args", "program", "settings"),
    [
        (["train.py"], Program("train.py"), {}),
        (
            ["train.py", "--help", "-m", "--select", "x", "--", "-"],
            Program("train.py", ("--help", "-m", "--select", "x", "--", "-")),
            {},
        ),
        (["--", "train.py", "--", "x"], Program("train.py", ("--", "x")), {}),
        (["-m", "a.b", "-m", "--lr=1"], Program("a.b", ("-m", "--lr=1"), as_module=True), {}),
        (["--on-error", "stop", "-m", "a"], Program("a", (), as_module=True), {"on_error": "stop"}),
        (
            ["-m", "--on-error=log", "a", "--on-error=x"],
            Program("a", ("--on-error=x",), as_module=True),
            {"on_error": "log"},
        ),
        (
            ["--select", "CTC4, ctc501", "--select=CTC2", "t.py"],
            Program("t.py"),
            {"select": ("CTC4", "ctc501", "CTC2")},
        ),
        (["--ignore", "negative-loss", "t.py"], Program("t.py"), {"ignore": ("negative-loss",)}),
        (["--findings", "f.jsonl", "t.py"], Program("t.py"), {"findings": Path("{here}/f.jsonl")}),
        (["--run-dir", "/runs/1", "t.py"], Program("t.py"), {"run_dir": Path("/runs/1")}),
    ],
    ids=str,
)
def test_options_end_at_the_script(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: list[str], program: Program, settings: dict[str, Any]
) -> None:
    runs: list[Any] = []
    monkeypatch.setattr(cli, "check", lambda *wanted: runs.append(wanted))
    monkeypatch.setattr(cli, "run", lambda *wanted: runs.append(wanted))
    here = {
        name: Path(str(v).replace("{here}", str(tmp_path))) if isinstance(v, Path) else v
        for name, v in settings.items()
    }
    assert cli.main(["run", *args]) == 0
    assert runs == [(program, here)] * 2


def run_without_demo(case: str | None, quick: bool) -> None:
    raise MissingExtraError("the demo needs espeakng-loader: pip install 'ctcguard[demo]'")


BAD = [
    ([], "say what to do: ctcguard run, demo, explain or rules (ctcguard --help shows more)"),
    (["rum"], "No such command 'rum'. Did you mean 'run'? (see ctcguard --help)"),
    (["--verbose"], "No such option: --verbose"),
    (["run"], "say what to run: ctcguard run SCRIPT ARGS… or ctcguard run -m MODULE ARGS…"),
    (["run", "-m"], "say what to run: ctcguard run SCRIPT ARGS… or ctcguard run -m MODULE ARGS…"),
    (["run", "--lr", "1", "here.py"], "No such option: --lr"),
    (["run", "--findings"], "Option '--findings' requires an argument (see ctcguard run --help; what comes after SCRIPT belongs to it)"),
    (["run", "nowhere.py"], "there is no script 'nowhere.py' in {here}: write the path of a file that exists"),
    (["run", "--select", "CTC4,CTC999", "here.py"], "select: 'CTC999' is no rule; write a code"),
    (["run", "--ignore", "blanc", "here.py"], "ignore: 'blanc' is no rule; write a code"),
    (["explain"], "Missing argument 'CODE' (see ctcguard explain --help)"),
    (["explain", "CTC999"], "'CTC999' is no rule of ctcguard; the codes are CTC101, CTC102"),
    (["explain", "CTC44"], "'CTC44' is no rule of ctcguard; did you mean CTC404"),
    (["explain", "unnormalized"], "'unnormalized' is no rule of ctcguard; did you mean CTC402 unnormalised-log-probs?"),
    (["explain", "negative"], "'negative' is no rule of ctcguard; did you mean CTC202 negative-label or CTC501"),
    (["rules", "--check"], "--check compares the pages of --docs DIR: name that directory"),
    (["demo"], "the demo needs espeakng-loader: pip install 'ctcguard[demo]'"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "message"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured, args: list[str], message: str
) -> None:
    monkeypatch.setitem(sys.modules, "ctcguard.demo", SimpleNamespace(run_demo=run_without_demo))  # type: ignore[arg-type]
    Path("here.py").touch()
    assert cli.main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err[: err.index("\n")].startswith(f"ctcguard: {message.format(here=tmp_path)}")
    assert err.count("\n") == 1


def test_a_wrong_value_names_the_right_ones(capsys: Captured) -> None:
    assert cli.main(["run", "--on-error", "explode", "x.py"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(value.value in err for value in cli.OnError)


def test_the_demo_is_called_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str | None, bool]] = []
    for result in (None, 4):
        demo = SimpleNamespace(run_demo=lambda case, quick, result=result: calls.append((case, quick)) or result)
        monkeypatch.setitem(sys.modules, "ctcguard.demo", demo)  # type: ignore[arg-type]
        assert cli.main(["demo", "--quick"] if result else ["demo", "--case", "healthy"]) == (result or 0)
    assert calls == [("healthy", False), (None, True)]


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
    assert cli.main(["rules"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    header, *lines = out.splitlines()
    assert header.split() == ["code", "name", "severity", "what", "it", "checks"]
    assert [line.split()[:3] for line in lines if line.startswith("CTC")] == [
        [rule.code, rule.name(), rule.severity.value] for rule in ALL
    ]
    assert "Checks that every utterance has a frame for each label" in out


def test_rules_as_json(capsys: Captured) -> None:
    assert cli.main(["rules", "--json"]) == 0
    records = {record["code"]: record for record in json.loads(capsys.readouterr().out)}
    assert list(records) == [rule.code for rule in ALL]
    record = records["CTC402"]
    assert record["name"] == "unnormalised-log-probs"
    assert record["severity"] == "error"
    assert "probabilities" in record["causes"]
    assert "CTC501" in record["explains"]
    assert record["summary"].startswith(
        "Checks that the classes of every sampled valid frame sum to 1, that is |logsumexp|"
    )
    limit = {threshold["name"]: threshold for threshold in record["thresholds"]}["float32_nats"]
    assert limit["default"] == 0.001
    assert "float32" in limit["description"]


def test_every_rule_has_a_summary_and_described_thresholds(capsys: Captured) -> None:
    cli.main(["rules", "--json"])
    for record in json.loads(capsys.readouterr().out):
        assert record["summary"].startswith("Checks "), record["code"]
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


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    import runpy

    monkeypatch.setattr(sys, "argv", ["ctcguard", "--version"])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("ctcguard", run_name="__main__")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"ctcguard {__version__}{os.linesep}"
