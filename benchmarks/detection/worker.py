"""Run programs under one tool, each in a fork of its own: ``python worker.py TOOL < jobs > observations``.

A job is a line of JSON: the file of a pair, its kind (torch, hf or jax), which of its programs; so is the answer.
Frameworks are imported once, here; nothing is computed before the fork, so that no thread is lost by it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from benchmarks.detection.absent import ctcguard as absent  # noqa: E402 - after the path
from benchmarks.detection.corpus import Program, program  # noqa: E402
from benchmarks.detection.observation import Alarm, Ending, Observation, cleaner, shown_lines  # noqa: E402
from benchmarks.detection.tools import NAMED  # noqa: E402
from benchmarks.detection.tools._tool import Tool  # noqa: E402
from tests.failures import pairs  # noqa: E402

LIMIT_S = 60
"""Of processor time; a machine that others use too may take longer by the clock."""
BY_THE_CLOCK, LOOK_S = 6, 0.05
FRAMEWORKS = {"torch": ("torch",), "hf": ("torch", "transformers.trainer"), "jax": ("jax", "optax", "flax.nnx")}


def main() -> None:
    """Answer every job."""
    tool = NAMED[sys.argv[1]]
    jobs = [json.loads(line) for line in sys.stdin]
    for kind in {job["kind"] for job in jobs if not tool.itself}:
        for module in FRAMEWORKS[kind]:
            importlib.import_module(module)
    warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)
    for job in jobs:
        digest = program(Path(job["path"])).digest
        twins = both(tool, job) if tool.itself else {job["twin"]: in_a_fork(tool, job)}
        for twin, observation in twins.items():
            answer = {**job, "twin": twin, "digest": digest, "observation": observation.to_json()}
            print(json.dumps(answer), flush=True)


def both(tool: type[Tool], job: dict[str, Any]) -> dict[str, Observation]:
    """Have a tool look at both programs of a pair, in processes of its own."""
    pair = program(Path(job["path"])).pair
    with tempfile.TemporaryDirectory() as name:
        return tool(Path(name), pair.settings, str).examine(pair.broken, pair.fixed)


def in_a_fork(tool: type[Tool], job: dict[str, Any]) -> Observation:
    """Look at one program; a crash or an endless loop is its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        child = os.fork()
        if not child:
            _child(tool, job, folder)
        status = _wait(child)
        answer = folder / "observation.json"
        if os.WIFSIGNALED(status):
            sent = os.WTERMSIG(status)
            if sent in (signal.SIGXCPU, signal.SIGKILL):
                return Observation(failure=f"not done after {LIMIT_S} s")
            return Observation(ending=Ending(0, signal.Signals(sent).name, "the process crashed"))
        return Observation.from_json(json.loads(answer.read_text()))


def _wait(child: int) -> int:
    for _ in range(int(LIMIT_S * BY_THE_CLOCK / LOOK_S)):  # counted, so that a pause of the machine is no time
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(LOOK_S)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def _child(tool: type[Tool], job: dict[str, Any], folder: Path) -> None:
    code = 1
    with contextlib.suppress(BaseException):  # whatever happens, the fork must not go on as its parent would
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S + 5))
        observation = _observe(tool, job, folder)
        (folder / "observation.json").write_text(json.dumps(observation.to_json()))
        code = 0
    os._exit(code)


def _observe(tool: type[Tool], job: dict[str, Any], folder: Path) -> Observation:
    """In the fork: attach the tool, run the program, tell what happened."""
    place, screen = folder / "run", folder / "screen"
    place.mkdir()
    os.chdir(place)
    _redirect(screen)
    found = program(Path(job["path"]))
    if not tool.own:
        sys.modules["ctcguard"] = absent
    return _Look(tool, found, place, screen).taken(found.pair.broken if job["twin"] == "broken" else found.pair.fixed)


def _redirect(screen: Path) -> None:
    with screen.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())


class _Look:
    """A tool at one program."""

    def __init__(self, tool: type[Tool], found: Program, place: Path, screen: Path) -> None:
        self._program = found
        self._screen = screen
        self._clean = cleaner(str(place), str(place.parent), str(found.pair.path.parents[1]), str(ROOT))
        self._tool = tool(place, found.pair.settings, self._output)
        self._steps = self._tool.steps(found.kind)
        self._observation = Observation()

    def taken(self, source: str) -> Observation:
        """Run it."""
        try:
            with self._steps.counting(), self._tool.attached(self._program.kind, self._say, self._steps):
                self._run(source)
            self._tool.finish(self._say)
        except Exception as error:  # noqa: BLE001 - the tool's own fault is told in its column
            self._observation.failure = self._clean(f"{type(error).__name__}: {error}")
        self._observation.steps = self._steps.taken
        return self._observation

    def _run(self, source: str) -> None:
        path = self._program.pair.path
        try:
            pairs.execute(source, path)
        except BaseException as error:  # noqa: BLE001 - what the program raised is part of what is to be told
            lines = self._program.after_header(shown_lines(error, str(path)))
            self._observation.ending = Ending(self._steps.taken, type(error).__name__, self._clean(str(error)), lines)
            alarm = self._tool.alarm(error)
            if alarm is not None:
                self._say(*alarm, lines=(*lines, *self._program.after_header(self._tool.lines(str(path)))))

    def _say(self, kind: str, message: str, step: int | None = None, lines: tuple[int, ...] = ()) -> None:
        when = self._steps.taken if step is None else step
        self._observation.add(Alarm(when, self._clean(kind), self._clean(message), lines))

    def _output(self) -> str:
        sys.stdout.flush()
        sys.stderr.flush()
        return self._screen.read_text(errors="replace")


if __name__ == "__main__":
    main()
