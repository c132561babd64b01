"""TrainCheck's selective tracing of a plain loop, step by step in turn with others.

It instruments all of torch, so it has a process of its own, which takes a step when it is told to and says how long
that took. Before, it is prepared as its documentation has it: a healthy run is traced in full, invariants are inferred
from that, and only what they need is traced then, at every step. Checking the trace afterwards is not counted.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from threading import Thread

from benchmarks.overhead.ratios import Took

REFERENCE_STEPS = 3
LIMIT_S = 300
"""By the clock, for each of its commands."""
PROGRAM = """import os
import sys
import time
from multiprocessing.connection import Client

import torch

sys.path.insert(0, {root!r})
from benchmarks.overhead import torch_loops

loop = torch_loops.{name}()
told = Client(os.environ["TOLD"]) if "TOLD" in os.environ else None
model = loop.model
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range({steps}):
    if told:
        told.recv()
    clock, processor = time.perf_counter(), time.process_time()
    batch = loop.batches[step % len(loop.batches)]
    optimizer.zero_grad(set_to_none=True)
    loss = loop.loss(model, batch)
    loss.backward()
    optimizer.step()
    if told:
        told.send((time.perf_counter() - clock, time.process_time() - processor))
"""
"""As users write it: what is tracked is a variable of the script."""


class CannotError(Exception):
    """One of its commands failed."""


class Traced:
    """A traced training: each call is a step of it.

    Parameters
    ----------
    name : str
        A function of `benchmarks.overhead.torch_loops` that makes a `Loop`.

    Raises
    ------
    CannotError
        Where TrainCheck cannot prepare or run it, with the last line that it printed.
    """

    def __init__(self, name: str) -> None:
        self._kept = tempfile.TemporaryDirectory()
        self._folder = Path(self._kept.name)
        self._lay("reference.py", name, REFERENCE_STEPS)
        self._run(
            "traincheck-collect", "--pyscript", "reference.py", "--models-to-track", "model", "--output-dir", "all"
        )
        self._run("traincheck-infer", "-f", "all", "-o", "invariants.json", "-j", "1")
        self._lay("traced.py", name, 1_000_000_000)
        self._told = self._started()
        self()

    def __call__(self) -> Took:
        """Take a step."""
        self._told.send("step")
        return Took(*self._told.recv())

    def _lay(self, file: str, name: str, steps: int) -> None:
        root = str(Path(__file__).resolve().parents[2])
        (self._folder / file).write_text(PROGRAM.format(root=root, name=name, steps=steps))

    def _started(self) -> Connection:
        """The traced run, once its script is at its first step."""
        address = str(self._folder / "told")
        command = ["traincheck-collect", "--pyscript", "traced.py", "--models-to-track", "model"]
        command += ["--invariants", "invariants.json", "--sampling-interval", "1", "--output-dir", "selected"]
        with Listener(address) as listener:
            process = self._begun(command, {"TOLD": address})
            atexit.register(_end, process)
            arrived: list[Connection] = []
            waiting = Thread(target=lambda: arrived.append(listener.accept()), daemon=True)
            waiting.start()
            for _ in range(10 * LIMIT_S):
                waiting.join(0.1)
                if arrived:
                    return arrived[0]
                if process.poll() is not None:
                    break
        raise CannotError(f"traincheck-collect: {self._last_line()}")

    def _run(self, *command: str) -> None:
        process = self._begun(list(command), {})
        try:
            code = process.wait(LIMIT_S)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise CannotError(f"{command[0]}: not done after {LIMIT_S} s") from error
        if code:
            raise CannotError(f"{command[0]}: {self._last_line()}")

    def _begun(self, command: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
        programs = Path(sys.executable).parent
        given = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "POLARS_MAX_THREADS": "1",
            **variables,
        }
        with (self._folder / "screen").open("wb") as screen:
            # A session of its own: on errors TrainCheck ends all of its process group.
            return subprocess.Popen(
                [str(programs / command[0]), *command[1:]],
                cwd=self._folder,
                env=given,
                stdout=screen,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _last_line(self) -> str:
        lines = (self._folder / "screen").read_text(errors="replace").strip().splitlines()
        return lines[-1].replace(f"{self._folder}/", "") if lines else "nothing printed"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
