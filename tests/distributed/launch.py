"""Start a job of several processes, with a limit after which all of them are killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

PROGRAMS = Path(__file__).parent / "programs"
LIMIT_S = 90
"""Of one job. On an idle machine with two cores each takes 6 to 15 s, most of it imports."""


class Outcome(NamedTuple):
    """What a job leaves."""

    code: int
    console: str
    seconds: float


def job(*command: str, limit_s: float = LIMIT_S, **environment: str) -> Outcome:
    """Run a command in a session of its own; out and err together are the console.

    A job that is still there after the limit has hung: it is killed, and the test fails with what it said.
    """
    started = time.monotonic()
    everywhere = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1", **environment}
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=everywhere,
    )
    try:
        console, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGABRT)  # each rank then says where it stands
        console, _ = process.communicate()
        raise AssertionError(f"the job hung: killed after {limit_s} s\n{console}") from None
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return Outcome(process.returncode, console, time.monotonic() - started)


def torchrun(ranks: int, *command: str, **environment: str) -> Outcome:
    """As ``torchrun --standalone --nproc-per-node RANKS COMMAND`` on the command line."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))
    return job(*launcher, *command, **environment)


def program(name: str) -> str:
    """The path of a program."""
    return str(PROGRAMS / f"{name}.py")


def results(ranks: int) -> list[dict[str, Any]]:
    """What each rank wrote of itself, in order."""
    return [json.loads(Path(f"result-{rank}.json").read_text()) for rank in range(ranks)]


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind in the findings file of a folder."""
    lines = [json.loads(line) for line in (folder / "findings.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["type"] == kind]


def panels(console: str, code: str) -> list[str]:
    """The first lines of the verdicts on a console, of one code; the other ranks write in between."""
    return re.findall(f"╭─ {code} [^\n]*", console)
