"""Broken and fixed programs made from public reports: each pair is one file, in which one line is marked.

The file is the broken program. Its marked line says how the fixed one differs, so that the two differ nowhere else::

    scores = model(x).softmax(-1)  # right: scores = model(x).log_softmax(-1)

- ``wrong code  # right: code``: the fixed program has the code after the mark in place of the code before it;
- ``# right: code`` alone on its line: the fixed program has one more line;
- ``wrong code  # right:`` with nothing after the mark: the fixed program has one line less (an empty one, so that line
  numbers stay).

The docstring of the file is its header: one sentence, an empty line, and fields ``name: value``, one a line.

======== ============================================================================================================
report   a link of the report; may be repeated
record   the id of the report in ``failures.jsonl``
expects  the first alarm: ``CTC402 probabilities at step 0`` or ``CTC101 missing-classes before training``
also     one more alarm that is right, with its reason: ``CTC301 too-few-frames: …``; may be repeated
settings optional: settings of the guard as a JSON object, for instance thresholds of the rules that need patience
raises   optional: the exception with which the framework itself refuses the broken program
======== ============================================================================================================

A program whose labels lie outside of the head is given such that torch, which does not check them, reads and writes
within its own tensors: an earlier utterance has the labels that are too large, a later one those that are negative.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from ctcguard.runner import Guards

HERE = Path(__file__).parent
FOLDERS = ("torch", "hf", "jax")
MARK = "# right:"
SETUP = "setup"
# Nothing ends the run, and nothing depends on the time that it takes.
SETTINGS: dict[str, Any] = {"on_error": "log", "on_warning": "log", "sinks": ["jsonl"], "budget": "none"}

_FIELD = re.compile(r"(report|record|expects|also|settings|raises): (\S.*)")
_EXPECTS = re.compile(r"(CTC\d{3}) ([a-z0-9-]+) (?:at step (\d+)|(before training))")
_ALSO = re.compile(r"(CTC\d{3}) ([a-z0-9-]+): \S.+")


class PairError(ValueError):
    """A file that is no pair; the message says what it lacks."""


@dataclass(frozen=True)
class Alarm:
    """A verdict of severity error or warning: what, why, and after how many optimizer steps."""

    code: str
    cause: str
    step: int
    phase: str = field(default="train", compare=False)


@dataclass(frozen=True)
class Pair:
    """A file read.

    Attributes
    ----------
    path : Path
        The file.
    broken, fixed : str
        The two programs; line for line the same but for one.
    summary : str
        The first sentence of the header.
    reports : tuple of str
        Links.
    record : str
        An id of ``failures.jsonl``.
    expects : Alarm
        What a monitor has to say first.
    before_training : bool
        Whether it has to be said before the first call of the loss.
    also : tuple of (code, cause)
        Further alarms that are right.
    settings : dict
        Settings of the guard, for both programs.
    raises : str
        The type of the exception with which the broken program ends, or empty.
    """

    path: Path
    broken: str
    fixed: str
    summary: str
    reports: tuple[str, ...]
    record: str
    expects: Alarm
    before_training: bool
    also: frozenset[tuple[str, str]]
    settings: dict[str, Any]
    raises: str

    @property
    def name(self) -> str:
        """``torch/softmax_for_log_softmax``."""
        return f"{self.path.parent.name}/{self.path.stem}"


def marked_lines(source: str) -> list[int]:
    """Where the marks are, counted from 0."""
    return [number for number, line in enumerate(source.splitlines()) if MARK in line]


def fixed_twin(source: str) -> str:
    """The program as it should have been.

    Raises
    ------
    PairError
        If not exactly one line is marked.
    """
    marked = marked_lines(source)
    if len(marked) != 1:
        raise PairError(f"{len(marked)} lines are marked with {MARK!r}; mark exactly one")
    lines = source.splitlines()
    wrong, _, right = lines[marked[0]].partition(MARK)
    indent = wrong[: len(wrong) - len(wrong.lstrip())]
    lines[marked[0]] = f"{indent}{right.strip()}" if right.strip() else ""
    return "\n".join(lines) + "\n"


def read(path: Path) -> Pair:
    """Read a pair.

    Raises
    ------
    PairError
        If the header or the mark is not as it should be.
    """
    source = path.read_text(encoding="utf-8")
    try:
        return _pair(path, source)
    except PairError as error:
        raise PairError(f"{path.name}: {error}") from None


def _pair(path: Path, source: str) -> Pair:
    summary, fields = _header(source)
    expected = _EXPECTS.fullmatch(_only(fields, "expects"))
    further = [_ALSO.fullmatch(also) for also in fields["also"]]
    if expected is None:
        raise PairError(
            "expects: is written 'CTC402 probabilities at step 0' or 'CTC101 missing-classes before training'"
        )
    code, cause, step, before = expected.groups()
    fixed = fixed_twin(source)
    try:
        compile(fixed, path, "exec")
    except SyntaxError as error:
        raise PairError(
            f"the fixed program does not parse ({error}): a mark changes one line, not a part of one"
        ) from None
    return Pair(
        path=path,
        broken=source,
        fixed=fixed,
        summary=summary,
        reports=tuple(fields["report"]),
        record=_only(fields, "record"),
        expects=Alarm(code, cause, int(step or 0)),
        before_training=before is not None,
        also=frozenset(_code_and_cause(match) for match in further),
        settings=json.loads(_only(fields, "settings", "{}")),
        raises=_only(fields, "raises", ""),
    )


def _header(source: str) -> tuple[str, dict[str, list[str]]]:
    if not source.startswith('"""'):
        raise PairError("it does not begin with a docstring")
    summary, _, body = source[3:].partition('"""')[0].partition("\n\n")
    fields: dict[str, list[str]] = {name: [] for name in ("report", "record", "expects", "also", "settings", "raises")}
    for line in body.strip().splitlines():
        match = _FIELD.fullmatch(line.strip())
        if match is None:
            raise PairError(f"{line!r} is no field of the header")
        fields[match[1]].append(match[2])
    if not fields["report"]:
        raise PairError("report: is missing")
    return summary, fields


def _only(fields: dict[str, list[str]], name: str, default: str | None = None) -> str:
    values = fields[name] or ([] if default is None else [default])
    if len(values) != 1:
        raise PairError(f"{name}: is there {len(fields[name])} times")
    return values[0]


def _code_and_cause(match: re.Match[str] | None) -> tuple[str, str]:
    if match is None:
        raise PairError("also: is written 'CTC301 too-few-frames: why it is right to say that too'")
    return match[1], match[2]


def files(folder: str) -> list[Path]:
    """The pairs of ``torch``, ``hf`` or ``jax``, by name."""
    return sorted((HERE / folder).glob("*.py"))


def execute(source: str, path: Path, seed: int = 0) -> None:
    """Run a program as ``python path`` would, in this process; what it raises leaves here.

    Parameters
    ----------
    source : str
        The broken or the fixed program.
    path : Path
        Under which name tracebacks and call sites show it.
    seed : int
        Of Python, numpy and torch; a program may set its own.
    """
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
    main = ModuleType("__main__")
    main.__file__ = str(path)
    before, arguments = sys.modules["__main__"], sys.argv
    sys.modules["__main__"], sys.argv = main, [str(path)]
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(main))
    finally:
        sys.modules["__main__"], sys.argv = before, arguments


@contextlib.contextmanager
def guarded(folder: Path, settings: dict[str, Any]) -> Iterator[Guards]:
    """The guards of ``ctcguard run``, in a folder; a guard that the program makes has the same settings.

    Parameters
    ----------
    folder : Path
        The working directory; findings.jsonl goes below it.
    settings : dict
        In addition to `SETTINGS`.
    """
    variables = {
        f"CTCGUARD_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in (SETTINGS | settings).items()
    }
    try:
        with contextlib.chdir(folder), mock.patch.dict(os.environ, variables), Guards({}) as guards:
            yield guards
    finally:  # a process has one run as a rule: what waits for an import would wait for ever
        sys.meta_path = [finder for finder in sys.meta_path if type(finder).__module__ != "ctcguard.on_import"]


def records(folder: Path) -> list[dict[str, Any]]:
    """All lines of every findings file below a folder, in the order in which they were written."""
    files = sorted(folder.rglob("findings*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def alarms(lines: list[dict[str, Any]]) -> list[Alarm]:
    """The verdicts that are more than information, in the order of their roots."""
    verdicts = [(line, _root(line, lines)) for line in lines if line["type"] == "verdict"]
    return [
        Alarm(line["code"], line["cause"], line["step"], root["phase"])
        for line, root in sorted(verdicts, key=lambda verdict: verdict[1]["time"])
        if root["severity"] != "information"
    ]


def _root(verdict: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    identity = [verdict[name] for name in ("code", "cause", "step")]
    findings = (line for line in lines if line["type"] == "finding")
    return next(line for line in findings if [line[name] for name in ("code", "cause", "step")] == identity)


def wrong_about(pair: Pair, found: list[Alarm]) -> list[str]:
    """What is not as the header says, of the alarms that the broken program gave; empty when all is right."""
    if not found:
        return [f"silent; expected {pair.expects}"]
    complaints = []
    first = found[0]
    if first != pair.expects or (first.phase == SETUP) != pair.before_training:
        complaints.append(f"said {first}; expected {pair.expects}")
    extra = [alarm for alarm in found[1:] if (alarm.code, alarm.cause) not in pair.also]
    complaints += [f"said {alarm} too: one mistake, one verdict" for alarm in extra]
    said = {(alarm.code, alarm.cause) for alarm in found}
    complaints += [
        f"did not say {code} {cause}, which the header announces" for code, cause in sorted(pair.also - said)
    ]
    return complaints
