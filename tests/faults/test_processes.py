"""How processes end while a guard is at work: what was found is in the file, and the exit is the program's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ctcguard_integrations.torch_loop import watch
from tests.faults.training import FOUND, RUN_DIR, lines, loss_of, own_faults, plain, train, written

PROGRAM = Path(__file__).parent / "programs" / "ends.py"


def ended(how: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *options, str(PROGRAM), how]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=100, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("SIGTERM", -signal.SIGTERM),
        ("SIGHUP", -signal.SIGHUP),
        ("SIGKILL", -signal.SIGKILL),
        ("SIGINT", -signal.SIGINT),
        ("_exit", 7),
    ],
)
def test_an_end_in_the_middle_of_training(how: str, code: int) -> None:
    done = ended(how)
    assert done.returncode == code, done.stderr
    assert written() == FOUND
    assert [record["code"] for record in lines("verdict")] == ["CTC402"]
    assert len(lines("end")) == (how == "SIGINT")  # the block is left, as by any exception


@pytest.mark.parametrize(("how", "code"), [("exit", 7), ("exception", 1)])
def test_an_end_of_the_programs_own(how: str, code: int) -> None:
    done = ended(how)
    assert done.returncode == code
    assert ("LookupError: the user's own" in done.stderr) == (how == "exception")
    assert written() == FOUND
    assert len(lines("end")) == 1


def test_a_fork_that_ends_leaves_the_last_line_to_its_parent() -> None:
    done = ended("fork")
    assert done.returncode == 0, done.stderr
    assert len(lines("end")) == 1
    assert lines("end")[0]["calls"] == 5
    assert len([record for record in lines("finding") if record["code"] == "CTC402"]) == 2  # the fork's too


def test_training_in_a_handler_that_runs_when_the_interpreter_closes() -> None:
    done = ended("handler")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert written() == FOUND
    assert lines("end")[0]["calls"] == 5


def test_training_after_the_guard_was_closed_with_the_interpreter() -> None:
    done = ended("late")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert lines("end")[0]["calls"] == 5


def test_a_thread_that_trains_while_the_interpreter_closes() -> None:
    done = ended("thread")
    assert done.returncode in (0, -signal.SIGABRT), done.stderr
    assert "Traceback" not in done.stderr
    assert written() >= FOUND
    assert len(lines("end")) == 1


def test_a_program_without_standard_streams() -> None:
    done = ended("closed")
    assert done.returncode == 0
    assert written() >= FOUND


def test_warnings_that_are_errors() -> None:
    done = ended("warnings", "-W", "error::UserWarning")
    assert done.returncode == 0, done.stderr
    assert own_faults_written() == []
    assert written() == FOUND


def test_a_terminal_of_another_century() -> None:
    done = ended("exit", PYTHONIOENCODING="ascii:strict", LC_ALL="C", PYTHONUTF8="0", TERM="dumb", COLUMNS="1")
    assert done.returncode == 7, done.stderr
    assert own_faults_written() == []
    assert written() == FOUND


def test_a_process_of_its_own_is_not_seen_and_not_disturbed() -> None:
    Path("child").mkdir()
    done = ended("child")
    assert done.returncode == 0, done.stderr
    assert lines("end")[0]["calls"] == 5
    assert written(Path("child") / RUN_DIR) == FOUND


def own_faults_written() -> list[str]:
    return [record["message"] for record in lines("finding") if record["code"] in ("CTC902", "CTC903")]


class Losses(Dataset[torch.Tensor]):
    """A data set whose items are CTC losses: workers call what the guard watches."""

    def __init__(self, wrong: bool) -> None:
        self.wrong = wrong

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        with torch.no_grad():
            return loss_of(torch.nn.Linear(8, 12), torch.Generator().manual_seed(index), self.wrong)


@pytest.mark.parametrize("wrong", [False, True])
def test_forked_workers_of_a_data_loader_that_call_the_loss(wrong: bool) -> None:
    with watch(on_error="raise", run_dir=RUN_DIR, sinks=("jsonl",)) as guard:
        losses = list(DataLoader(Losses(wrong), num_workers=2, multiprocessing_context="fork", batch_size=None))
        assert train(wrong=()).same(train(wrong=()))
    assert len(losses) == 4
    assert own_faults(guard.findings) == []
    assert len(lines("end")) == 1
    assert (written() >= FOUND) == wrong  # the workers write into the file of their parent, whole lines


def test_the_comparison_in_these_programs_can_fail() -> None:
    assert not train(wrong=()).same(plain())
