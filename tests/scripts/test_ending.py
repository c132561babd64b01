"""The last words of a run: short, true, plain where nobody looks, and silent where nothing was found."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from ctcguard import ending
from ctcguard.cli import main
from ctcguard.finding import Finding, Severity
from ctcguard.verdict import Verdict

SCRIPTS = Path(__file__).parent
END = {"steps": 240, "calls": 1, "overhead_fraction": 0.0042}


def a_verdict(
    severity: Severity = Severity.ERROR, step: int = 240, action: str = "raise", phase: str = "train"
) -> Verdict:
    fields = {"code": "CTC402", "name": "unnormalised-log-probs", "cause": "probabilities", "message": "m", "fix": "f"}
    return Verdict(root=Finding(severity=severity, step=step, phase=phase, **fields), action=action)


def shown(verdicts: list[Verdict], folder: Path = Path("nowhere"), **options: bool) -> str:
    console = Console(file=io.StringIO(), width=90, highlight=False, **options)
    console.print(ending.ending(verdicts, END, folder.absolute()))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_stopped_run_says_when_and_where_to_look() -> None:
    Path("run").mkdir()
    Path("run/240-CTC402.safetensors").touch()
    warning = a_verdict(Severity.WARNING, 60, "alert")
    lines = shown([warning, a_verdict(), warning], Path("run")).splitlines()
    assert lines[0].startswith("╭─ ctcguard · 1 error, 2 warnings · stopped at step 240 ─")
    assert [line.strip("│ ").split(maxsplit=1) for line in lines[1:-1]] == [
        ["run", "1 CTC call, 240 steps; the guard took 0.4% of the time"],
        ["look", "ctcguard report run"],
        ["replay", "ctcguard replay run/240-CTC402.safetensors"],
    ]
    assert lines[-1].startswith("╰")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (a_verdict(phase="setup"), "1 error · stopped before training"),
        (a_verdict(Severity.WARNING, 3, "alert"), "1 warning · warned at step 3"),
        (a_verdict(action="stop"), "1 error · ended at step 240"),
    ],
)
def test_the_first_line_says_what_happened(verdict: Verdict, words: str) -> None:
    assert words in shown([verdict])


def test_files_that_are_not_there_are_not_named() -> None:
    text = shown([a_verdict()])
    assert "report" not in text
    assert "replay" not in text


def test_without_the_extra_the_directory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "missing", lambda: ["plotly"])
    Path("run").mkdir()
    assert "look run " in " ".join(shown([a_verdict()], Path("run")).replace("│", "").split()) + " "
    assert "report" not in shown([a_verdict()], Path("run"))


def test_a_healthy_run_is_one_line() -> None:
    text = shown([]).splitlines()
    assert text == ["ctcguard · nothing found: 1 CTC call, 240 steps; the guard took 0.4% of the time"]


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" in shown([a_verdict()], force_terminal=True)
    assert "\x1b[" not in shown([a_verdict()])
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in shown([a_verdict()], force_terminal=True)


def run_guarded(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ctcguard", "run", "--run-dir", "run", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=os.environ)


def test_a_run_that_was_stopped_ends_with_commands_that_work(capsys: pytest.CaptureFixture[str]) -> None:
    done = run_guarded(str(SCRIPTS / "train_softmax.py"))
    assert done.returncode == 3
    panel = done.stderr[done.stderr.index("╭─ ctcguard · 1 error · stopped at step 0 ─") :]
    commands = [line.strip("│ ").split(maxsplit=1)[1] for line in panel.splitlines() if "ctcguard re" in line]
    assert commands == ["ctcguard report run", "ctcguard replay run/0-CTC402.safetensors"]
    assert [main(command.split()[1:]) for command in commands] == [0, 3]
    assert "the verdict is that of the run" in capsys.readouterr().out


def test_a_healthy_script_ends_in_silence_where_nobody_looks() -> None:
    done = run_guarded(str(SCRIPTS / "train_right.py"), "--steps", "2")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_healthy_script_says_so_to_a_person() -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "ctcguard", "run", str(SCRIPTS / "train_right.py"), "--steps", "2"]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"}
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, env=environment, timeout=100, check=False)
    os.close(theirs)
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    assert done.returncode == 0
    assert "nothing found" in said
    assert "2 CTC calls, 2 steps" in said
