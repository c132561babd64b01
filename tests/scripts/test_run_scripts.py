"""``ctcguard run`` on unchanged PyTorch scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ctcguard.program import Program
from ctcguard.runner import run
from tests.plain import printed

SCRIPTS = Path(__file__).parent
FINDINGS = Path("findings.jsonl")


class Outcome(NamedTuple):
    """What a process leaves."""

    code: int
    out: str
    err: str


def outcome(*command: str) -> Outcome:
    done = subprocess.run([sys.executable, *command], check=False, capture_output=True, text=True, timeout=100)
    return Outcome(done.returncode, done.stdout, done.stderr)


def guarded(*command: str) -> Outcome:
    return outcome("-m", "ctcguard", "run", "--findings", str(FINDINGS), *command)


def records(kind: str, file: Path = FINDINGS) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["type"] == kind]


@pytest.mark.parametrize(
    ("script", "code", "cause", "also", "fix"),
    [
        ("train_softmax.py", "CTC402", "probabilities", {"CTC401", "CTC501"}, "log_softmax"),
        ("train_narrow_head.py", "CTC201", "label-beyond-head", set(), "24"),
    ],
)
def test_a_wrong_script_is_stopped_at_step_0(script: str, code: str, cause: str, also: set[str], fix: str) -> None:
    done = guarded(str(SCRIPTS / script))
    assert done.code == 3
    assert done.out == ""  # no step was taken
    [verdict] = records("verdict")
    assert (verdict["code"], verdict["cause"], verdict["step"], verdict["action"]) == (code, cause, 0, "raise")
    assert set(verdict["also"]) == also
    [root] = [finding for finding in records("finding") if finding["code"] == code]
    assert fix in root["fix"]
    assert root["call_site"].endswith(f"{script}:26")
    assert records("end")[0]["steps"] == 0
    one_screen_of_verdict(done.err, code)


def one_screen_of_verdict(err: str, code: str) -> None:
    lines = err[: err.index("╭─ ctcguard · ")].splitlines()  # then comes how the run ended
    assert len(lines) < 25
    assert lines[0].startswith(f"╭─ {code} ")
    assert lines[-1].startswith("╰")
    assert "Traceback" not in err
    assert sum(code in line and "explain" in line for line in lines) == 1


def test_the_right_script_is_left_alone() -> None:
    done = guarded(str(SCRIPTS / "train_right.py"), "--steps", "4")
    assert done.code == 0
    assert done.err == ""
    assert done.out.count("0x") == 4
    assert done.out == printed(SCRIPTS / "train_right.py", "--steps", "4")
    assert [finding for finding in records("finding") if finding["severity"] != "information"] == []
    assert records("verdict") == []
    [end] = records("end")
    assert (end["steps"], end["calls"]) == (4, 4)


def test_a_spawned_data_worker() -> None:
    done = guarded(str(SCRIPTS / "load_spawned.py"))
    assert done.code == 6
    assert done.err == ""
    assert done.out.count("0x") == 2
    assert [(end["steps"], end["calls"]) for end in records("end")] == [(2, 2)]


def test_a_traceback_through_the_loss_does_not_show_the_guard() -> None:
    Path("wrong.py").write_text(
        "import torch\n"
        "log_probs = torch.zeros(50, 2, 20).log_softmax(-1)\n"
        "torch.nn.CTCLoss()(log_probs, torch.ones(2, 5, dtype=torch.long), (50, 50), (5, 5, 5))\n"
    )
    plain, done = outcome("wrong.py"), guarded("wrong.py")
    assert done.code == plain.code == 1
    assert done.err.endswith(plain.err)
    assert plain.err.startswith("Traceback")


def test_every_trainer_is_checked_before_it_trains(tmp_path: Path) -> None:
    done = guarded(str(SCRIPTS / "train_hf.py"), str(tmp_path))
    assert done.out == "trainer imported: False\ntraining\n"
    assert done.code == 3
    [verdict] = records("verdict")
    assert (verdict["code"], verdict["cause"], verdict["step"]) == ("CTC101", "missing-classes", 0)
    assert "vocab_size=len(tokenizer)" in records("finding")[0]["fix"]
    assert records("finding")[0]["phase"] == "setup"
    one_screen_of_verdict(done.err, "CTC101")


# From here on in this process, where torch has been imported already.


@pytest.fixture
def _as_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.mark.usefixtures("_as_a_process_of_its_own")
@pytest.mark.parametrize(
    ("settings", "code", "lines", "shown", "codes"),
    [
        ({"on_error": "stop"}, 3, 0, True, {"CTC402"}),
        ({"on_error": "alert"}, None, 2, True, {"CTC402"}),
        ({"on_error": "log"}, None, 2, False, {"CTC402"}),
        ({"select": ("CTC4",), "ignore": ("CTC402",)}, 3, 0, True, {"CTC401"}),
        ({"ignore": ("CTC4", "CTC5", "CTC6")}, None, 2, False, set()),
    ],
    ids=str,
)
def test_the_reaction_is_the_one_that_was_asked_for(
    capfd: pytest.CaptureFixture[str],
    settings: dict[str, Any],
    code: int | None,
    lines: int,
    shown: bool,
    codes: set[str],
) -> None:
    left = None
    try:
        run(Program(str(SCRIPTS / "train_softmax.py"), ("--steps", "2")), {**settings, "findings": FINDINGS})
    except SystemExit as exit_:
        left = exit_.code
    out, err = capfd.readouterr()
    assert (left, out.count("loss")) == (code, lines)
    assert ("╭─" in err) == shown
    assert {verdict["code"] for verdict in records("verdict")} == codes


@pytest.mark.usefixtures("_as_a_process_of_its_own")
def test_a_script_that_catches_everything_still_leaves_its_findings(capfd: pytest.CaptureFixture[str]) -> None:
    text = (SCRIPTS / "train_softmax.py").read_text()
    start, loop = text.split("for step in range(steps):")
    body = "".join(f"    {line}\n" for line in f"for step in range(steps):{loop}".splitlines())
    Path("train.py").write_text(
        f"{start}try:\n{body}except Exception as error:\n    print('caught', type(error).__name__)\n"
    )
    run(Program("train.py"), {"run_dir": Path("runs")})
    out, err = capfd.readouterr()
    assert out == "caught CTCVerdictError\n"
    one_screen_of_verdict(err, "CTC402")
    [file] = Path("runs").rglob("findings.jsonl")
    assert [verdict["code"] for verdict in records("verdict", file)] == ["CTC402"]
    assert os.fspath(file) == "runs/findings.jsonl"


@pytest.mark.usefixtures("_as_a_process_of_its_own")
def test_torch_without_a_ctc_loss_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    Path("train.py").write_text("import torch\nprint(torch.ones(2).sum().item())\n")
    run(Program("train.py"), {"findings": FINDINGS})
    out, _ = capfd.readouterr()
    assert out == "2.0\n"
    assert [finding["code"] for finding in records("finding")] == ["CTC901"]


@pytest.mark.usefixtures("_as_a_process_of_its_own")
def test_a_bad_setting_is_one_line_and_exit_code_2(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTCGUARD_ON_ERROR", "explode")
    with pytest.raises(SystemExit) as left:
        run(Program(str(SCRIPTS / "train_right.py")), {})
    out, err = capfd.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err.startswith("ctcguard: on_error: ")
    assert err.count("\n") == 1
