"""TrainCheck: invariants inferred from the trace of a healthy run; the trace of another run is checked against them."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.detection.observation import KINDS, Alarm, Ending, Observation, cleaner
from benchmarks.detection.tools._tool import Tool

LIMIT_S = 60
"""Of processor time, for each of its commands; it traces thousands of functions, so a run is seconds here too."""
BY_THE_CLOCK, LOOK_S = 6, 0.05
BEGIN = """import random
import numpy
import torch
random.seed(0)
numpy.random.seed(0)
torch.manual_seed(0)
"""
"""The seeds that every other tool has; in sitecustomize.py, so that the program stays as it is."""
MODELS = """import json, runpy, sys
import torch
found = runpy.run_path(sys.argv[1], run_name="__main__")
modules = {name: value for name, value in found.items() if isinstance(value, torch.nn.Module)}
print("\\n" + json.dumps([name for name, module in modules.items() if list(module.parameters())]))
"""


class CannotError(Exception):
    """One of its commands failed."""


class TrainCheck(Tool):
    """An alarm is a violated invariant."""

    name = "traincheck"
    title = "TrainCheck"
    how = (
        "`traincheck-collect` on the fixed program, `traincheck-infer`, then `traincheck-collect` on either program "
        "(traced in full, which gives fewer false alarms than with `--invariants`) and `traincheck-check`; "
        "`--models-to-track` are the modules in the namespace of the program"
    )
    itself = True

    def examine(self, broken: str, fixed: str) -> dict[str, Observation]:
        """Look at both programs.

        Parameters
        ----------
        broken, fixed : str
            Their texts.

        Returns
        -------
        dict
            Observations of ``broken`` and ``fixed``.
        """
        self._lay("fixed", fixed)
        self._lay("broken", broken)
        try:
            models = self._models()
            self._collect("fixed", "reference", models)
            self._run("traincheck-infer", "-f", "reference", "-o", "invariants.json", "-j", "1")
        except CannotError as error:
            return {twin: Observation(failure=str(error)) for twin in ("broken", "fixed")}
        seen = {twin: self._checked(twin, models) for twin in ("broken", "fixed")}
        common = _common(seen["broken"].alarms, seen["fixed"].alarms)
        for observation in seen.values():
            observation.alarms = _kept(observation.alarms, common)
        return seen

    def _lay(self, twin: str, text: str) -> None:
        folder = self.folder / twin
        folder.mkdir()
        (folder / f"{twin}.py").write_text(text)
        (folder / "sitecustomize.py").write_text(BEGIN)
        absent = Path(__file__).parents[1] / "absent" / "ctcguard.py"
        (folder / "ctcguard.py").write_text(absent.read_text())

    def _models(self) -> list[str]:
        script = self.folder / "models.py"
        script.write_text(MODELS)
        printed = self._run(sys.executable, str(script), "fixed.py", folder="fixed")
        names: list[str] = json.loads(printed.splitlines()[-1])
        return names

    def _collect(self, twin: str, trace: str, models: list[str]) -> Ending | None:
        """Trace a program; how it ended, if by an exception."""
        tracked = ["--models-to-track", *models] if models else []
        output = self.folder / trace / "program_output.txt"
        try:
            self._run("traincheck-collect", "--pyscript", f"{twin}/{twin}.py", *tracked, "--output-dir", trace)
        except CannotError:
            last = self._last_line(output)
            error = re.fullmatch(r"([\w.]*(?:Error|Exception|Interrupt))(?:: (.*))?", last)
            if error is None:
                raise
            return Ending(0, error[1].rpartition(".")[2], self._clean(error[2] or ""))
        return None

    def _last_line(self, output: Path) -> str:
        if not output.exists():
            return ""
        lines = output.read_text(errors="replace").partition("\n\nProgram exited with code")[0].strip().splitlines()
        return re.sub(r"\x1b\[[0-9;]*m", "", lines[-1]) if lines else ""

    def _checked(self, twin: str, models: list[str]) -> Observation:
        observation = Observation()
        try:
            observation.ending = self._collect(twin, f"trace-{twin}", models)
            results = f"results-{twin}"
            self._run(
                "traincheck-check", "-f", f"trace-{twin}", "-i", "invariants.json", "-o", results, "--no-html-report"
            )
        except CannotError as error:
            observation.failure = str(error)
            return observation
        alarms = self._alarms(self.folder / results)
        observation.count = len(alarms)
        observation.alarms = list({alarm.kind: alarm for alarm in reversed(alarms)}.values())[::-1]
        return observation

    def _alarms(self, results: Path) -> list[Alarm]:
        violations = [
            violation
            for file in sorted(results.rglob("violations_summary.json"))
            for violation in json.loads(file.read_text())["violations"]
        ]
        alarms = []
        for violation in violations:
            # Addresses, which it takes for values, are never the same.
            text = re.sub(r"\d{6,}(\.0)?", "…", self._clean(violation["display_name"]))
            # Its first step is 1, and 0 what comes before the loop.
            alarms.append(Alarm(max(0, (violation["first_step"] or 0) - 1), text, text))
        return sorted(alarms, key=lambda alarm: (alarm.step, alarm.kind))

    def _run(self, *command: str, folder: str = ".") -> str:
        programs = Path(sys.executable).parent
        place = self.folder / folder
        variables = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(place)}
        name = Path(command[0]).name
        screen = self.folder / "screen"
        with screen.open("wb") as file:
            # A session of its own: on errors TrainCheck ends all of its process group.
            process = subprocess.Popen(
                command, cwd=place, env=variables, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S + 5))
            code = _ended(process)
        printed = screen.read_text(errors="replace")
        if code in (None, -signal.SIGXCPU, -signal.SIGKILL) or "error code -24" in printed:
            raise CannotError(f"{name}: not done after {LIMIT_S} s")
        if code:
            lines = [line for line in printed.replace("\r", "\n").splitlines() if line.strip()]
            raise CannotError(self._clean(f"{name}: {lines[-1] if lines else code}"))
        return printed

    def _clean(self, text: str) -> str:
        return cleaner(str(self.folder))(text)


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """The exit code; None if it had to be ended."""
    for _ in range(int(LIMIT_S * BY_THE_CLOCK / LOOK_S)):  # counted, so that a pause of the machine is no time
        if process.poll() is not None:
            return process.returncode
        time.sleep(LOOK_S)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return None


def _common(one: list[Alarm], other: list[Alarm]) -> list[str]:
    kinds = {alarm.kind for alarm in other}
    return [alarm.kind for alarm in one if alarm.kind in kinds]


def _kept(alarms: list[Alarm], common: list[str]) -> list[Alarm]:
    """Of what both programs violate, the same one stands for all; then what only this one does."""
    both = [alarm for alarm in alarms if alarm.kind in common[:1]]
    return both + [alarm for alarm in alarms if alarm.kind not in common][:KINDS]
