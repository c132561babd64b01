from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ctcguard import runner
from ctcguard.errors import CTCStop, CTCVerdictError, MissingExtraError, SettingsError
from ctcguard.finding import Finding, Severity
from ctcguard.program import NoProgramError, Program
from ctcguard.runner import Guards, check, run
from ctcguard.verdict import Verdict

Write = Callable[[str], Program]
FRAMEWORK = "late_framework"
LOOKED_FOR = f"ctcguard: nothing was guarded: the program imported none of the frameworks looked for ({FRAMEWORK})\n"


def verdict() -> Verdict:
    root = Finding(
        code="CTC402",
        name="unnormalised-log-probs",
        severity=Severity.ERROR,
        cause="raw-logits",
        message="the classes of a frame must sum to 1 but sum to e^2.71",
        fix="pass log_softmax(x, -1)",
    )
    return Verdict(root=root, action="raise")


class Recorder:
    """A framework's guard that writes down what is done to it."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.at_start: Exception | None = None
        self.at_close: Exception | None = None

    def start(self, guards: Guards, module: ModuleType) -> Recorder:
        self.log.append((module.__name__, dict(guards.settings)))
        if self.at_start:
            raise self.at_start
        return self

    def close(self, failed: bool = False) -> None:
        self.log.append("close")
        if self.at_close:
            raise self.at_close


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    guard = Recorder()
    monkeypatch.setattr(runner, "FRAMEWORKS", {FRAMEWORK: guard.start})
    return guard


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a program that can import a framework; the interpreter is left as it was."""
    for name in ("path", "argv", "meta_path", "excepthook"):
        value = getattr(sys, name)
        monkeypatch.setattr(sys, name, [*value] if isinstance(value, list) else value)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    (tmp_path / f"{FRAMEWORK}.py").write_text("")

    def write(text: str) -> Program:
        (tmp_path / "train.py").write_text(text)
        return Program("train.py", ("--lr", "1e-3"))

    yield write
    sys.modules.pop(FRAMEWORK, None)


def test_the_guard_runs_from_the_import_to_the_end(
    write: Write, guard: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    program = write(f"import sys\nimport {FRAMEWORK}\nprint(sys.argv)\n")
    run(program, {"on_error": "log"})
    assert guard.log == [(FRAMEWORK, {"on_error": "log"}), "close"]
    assert capsys.readouterr() == ("['train.py', '--lr', '1e-3']\n", "")


@pytest.mark.parametrize("last", ["sys.exit(5)", "raise KeyError(5)", "raise KeyboardInterrupt", "raise GeneratorExit"])
def test_it_is_closed_whatever_ends_the_program(write: Write, guard: Recorder, last: str) -> None:
    program = write(f"import sys\nimport {FRAMEWORK}\n{last}\n")
    with pytest.raises((SystemExit, KeyError, KeyboardInterrupt, GeneratorExit)):
        run(program, {})
    assert guard.log == [(FRAMEWORK, {}), "close"]


@pytest.mark.parametrize("kind", [CTCVerdictError, CTCStop])
def test_a_verdict_that_leaves_the_program_is_exit_code_3(
    write: Write, guard: Recorder, capsys: pytest.CaptureFixture[str], kind: type[CTCVerdictError]
) -> None:
    program = write(f"import {FRAMEWORK}\nraise {FRAMEWORK}.stop\n")
    sys.modules[FRAMEWORK] = SimpleNamespace(stop=kind(verdict()), __name__=FRAMEWORK)  # type: ignore[assignment]
    with pytest.raises(SystemExit) as left:
        run(program, {})
    assert left.value.code == 3
    assert guard.log[-1] == "close"
    assert capsys.readouterr() == ("", "")


def test_a_program_that_catches_the_verdict_keeps_its_exit_code(write: Write, guard: Recorder) -> None:
    program = write(
        f"import {FRAMEWORK}\ntry:\n    raise {FRAMEWORK}.stop\nexcept Exception:\n    raise SystemExit(9)\n"
    )
    sys.modules[FRAMEWORK] = SimpleNamespace(stop=CTCVerdictError(verdict()), __name__=FRAMEWORK)  # type: ignore[assignment]
    with pytest.raises(SystemExit) as left:
        run(program, {})
    assert left.value.code == 9


@pytest.mark.parametrize(
    ("last", "code"),
    [("", 3), ("sys.exit()", 3), ("sys.exit(0)", 3), ("sys.exit(7)", 7), ("raise ValueError(8)", None)],
)
def test_a_verdict_at_the_close_does_not_hide_a_failure(
    write: Write, guard: Recorder, last: str, code: int | None
) -> None:
    guard.at_close = CTCVerdictError(verdict())
    program = write(f"import sys\nimport {FRAMEWORK}\n{last}\n")
    with pytest.raises((SystemExit, ValueError)) as left:
        run(program, {})
    assert getattr(left.value, "code", None) == code


def test_a_setting_that_is_refused_ends_the_program_at_the_import(
    write: Write, guard: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    guard.at_start = SettingsError("'colour' is no setting of ctcguard")
    program = write(f"try:\n    import {FRAMEWORK}\nexcept Exception:\n    pass\nprint('unguarded')\n")
    with pytest.raises(SystemExit) as left:
        run(program, {})
    assert left.value.code == 2
    assert capsys.readouterr() == ("", "ctcguard: 'colour' is no setting of ctcguard\n")


def test_a_fault_of_the_guard_does_not_end_the_program(
    write: Write, guard: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    guard.at_start = AttributeError("no such thing")
    run(write(f"import {FRAMEWORK}\nprint('goes on')\n"), {})
    said = f"ctcguard: no guard for {FRAMEWORK} (AttributeError: no such thing); the program goes on without\n"
    assert capsys.readouterr() == ("goes on\n", said)


def test_a_guard_that_cannot_be_closed_does_not_change_the_exit_code(
    write: Write, guard: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    guard.at_close = OSError("disk full")
    run(write(f"import {FRAMEWORK}\n"), {})
    assert capsys.readouterr().err == f"ctcguard: the guard for {FRAMEWORK} could not be closed (OSError: disk full)\n"


def test_no_framework_is_said_once(write: Write, guard: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    run(write("print('plain')\n"), {})
    assert capsys.readouterr() == ("plain\n", LOOKED_FOR)
    assert guard.log == []


@pytest.mark.parametrize(
    ("program", "settings", "message"),
    [
        (Program("nowhere.py"), {}, "no script 'nowhere.py'"),
        (Program("train.py"), {"select": ("CTC999",)}, "'CTC999' is no rule"),
        (Program("train.py"), {"ignore": ("blank",)}, "'blank' is no rule"),
    ],
)
def test_what_can_be_refused_is_refused_before_the_run(
    write: Write, program: Program, settings: dict[str, Any], message: str
) -> None:
    write("")
    with pytest.raises((NoProgramError, SettingsError), match=message):
        check(program, settings)
    check(Program("train.py"), {"select": ("CTC402", "ctc5", "negative-label")})


def test_a_missing_extra_is_one_line(write: Write, guard: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    guard.at_start = MissingExtraError(
        "ctcguard.watch needs torch, which is not installed: pip install 'ctcguard[torch]'"
    )
    with pytest.raises(SystemExit):
        run(write(f"import {FRAMEWORK}"), {})
    assert capsys.readouterr().err.count("\n") == 1
