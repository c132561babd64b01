"""readings.jsonl: the readings of a run as rows, at most two thousand of them, for the curves of its report."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

from ctcguard.background import on_thread
from ctcguard.finding import SCHEMA, Finding
from ctcguard.record import plain
from ctcguard.verdict import Verdict

FILE = "readings.jsonl"
ROWS = 2048
"""Rows kept; when there are so many, every second is dropped, and from then on half as many calls are kept."""
DEADLINE_S = 5.0
"""Longest wait at the end for a file that is being written."""

Row = tuple[int, Mapping[str, float]]


class Timeline:
    """Keeps readings in memory, and writes them all with each verdict and at the end.

    The first line says how many calls there were and how many of them make one row; each other line is a row:
    ``step`` and the scalars of one call. The last call before a verdict, and the last of the run, are always rows.

    Parameters
    ----------
    run_dir : callable
        Says where the file goes, when it is written.
    """

    name = FILE

    def __init__(self, run_dir: Callable[[], Path]) -> None:
        self._run_dir = run_dir
        self._rows: list[Row] = []
        self._marked: list[tuple[int, Row]] = []
        self._last: Row | None = None
        self._calls, self._every = 0, 1
        self._under_way: Future[None] = Future()
        self._under_way.set_result(None)

    def finding(self, finding: Finding) -> None:
        """Nothing: findings are in a file of their own."""

    def readings(self, scalars: Mapping[str, float], step: int) -> None:
        """Keep the scalars of every call, every second, every fourth, and so on."""
        self._last = (step, scalars)
        if self._calls % self._every == 0:
            self._rows.append(self._last)
            if len(self._rows) >= ROWS:
                del self._rows[1::2]
                self._every *= 2
        self._calls += 1

    def verdict(self, verdict: Verdict) -> None:
        """Write what there is so far, on a thread: the run may end without a last word. Faults show at the end."""
        self._mark()
        if self._under_way.done() and self._last is not None:
            self._under_way = on_thread(partial(_write, self._path(), self._lines()), "ctcguard-readings")

    def end(self, record: Mapping[str, Any]) -> None:
        """Write them all."""
        self._mark()
        if not wait([self._under_way], DEADLINE_S).done:
            raise TimeoutError(f"not written within {DEADLINE_S:g} s")
        if self._last is not None:
            _write(self._path(), self._lines())

    def _mark(self) -> None:
        """Keep the last row, whether it is one of those that are kept or not."""
        if self._last is not None and len(self._marked) < ROWS:
            self._marked.append((self._calls - 1, self._last))

    def _path(self) -> Path:
        return self._run_dir() / FILE

    def _lines(self) -> list[Mapping[str, Any]]:
        """The first line and all rows in order; a plain copy, for the training goes on."""
        kept = {number * self._every: row for number, row in enumerate(self._rows)} | dict(self._marked)
        head = {"type": "readings", "schema": SCHEMA, "calls": self._calls, "every": self._every}
        return [head, *({"step": step, **scalars} for _, (step, scalars) in sorted(kept.items(), key=lambda i: i[0]))]


def _write(path: Path, lines: list[Mapping[str, Any]]) -> None:
    """Put a new file in the place of the old one: it is there as a whole or not at all."""
    text = "".join(json.dumps(plain(line), allow_nan=False) + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
