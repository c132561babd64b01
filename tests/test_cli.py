from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from ctcguard import __version__, cli
from ctcguard.errors import MissingExtraError
from ctcguard.program import Program
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
    (["run", "--findings"], "Option '--findings' requires an argument (see ctcguard run --help;"),
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
    monkeypatch.setitem(sys.modules, "ctcguard.demo", SimpleNamespace(run_demo=run_without_demo))
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

    def run_demo(case: str | None, quick: bool) -> int | None:
        calls.append((case, quick))
        return 4 if quick else None

    monkeypatch.setitem(sys.modules, "ctcguard.demo", SimpleNamespace(run_demo=run_demo))
    assert cli.main(["demo", "--case", "healthy"]) == 0
    assert cli.main(["demo", "--quick"]) == 4
    assert calls == [("healthy", False), (None, True)]


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    import runpy

    monkeypatch.setattr(sys, "argv", ["ctcguard", "--version"])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("ctcguard", run_name="__main__")
    assert left.value.code == 0
    assert capsys.readouterr().out == f"ctcguard {__version__}{os.linesep}"
