"""What a run directory tells: findings, verdicts, readings and flight records, whatever is there of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ctcguard.errors import RecordError, ReportError
from ctcguard.finding import Finding
from ctcguard.record import NOT_FINITE, Record, read
from ctcguard.sinks.timeline import FILE as READINGS
from ctcguard.verdict import Verdict

FINDINGS = "findings.jsonl"
HIDDEN = ("type", "schema", "utterance_count")
"""What a line of findings.jsonl says beside the fields of a finding."""


@dataclass(frozen=True)
class Story:
    """A run, read back.

    Attributes
    ----------
    folder : Path
        The run directory.
    findings : tuple of Finding
        In the order in which they were made.
    counts : tuple of int
        How many utterances each of them concerns; 0 when it is about the whole call.
    verdicts : tuple of Verdict
        As they were announced.
    end : dict or None
        The last line of findings.jsonl; None when the run has not come to its end, or was killed.
    runs : int
        How many runs have ended in this directory.
    ranks : int
        How many processes left files.
    rows : tuple of dict
        Readings, in order; numbers that are not finite are floats here.
    calls : int
        How many calls the readings were taken from.
    rank : str
        The folder of the process whose readings these are; empty for a run of one process.
    records : tuple of (path, Record)
        The flight records, in order of steps.
    notes : tuple of str
        What could not be read.
    """

    folder: Path
    findings: tuple[Finding, ...]
    counts: tuple[int, ...]
    verdicts: tuple[Verdict, ...]
    end: dict[str, Any] | None
    runs: int
    ranks: int
    rows: tuple[dict[str, Any], ...]
    calls: int
    rank: str
    records: tuple[tuple[Path, Record], ...]
    notes: tuple[str, ...]

    def worst(self) -> list[Verdict]:
        """The verdicts, worst severity first, then in the order in which they were announced."""
        return sorted(self.verdicts, key=lambda v: min(finding.severity.rank for finding in v.findings()))


def read_story(folder: Path) -> Story:
    """Read a run directory; of a job of several processes, the folders of all of them.

    Raises
    ------
    ReportError
        One line, when there is no run in it.
    """
    places = [folder, *sorted(folder.glob("rank-*"), key=lambda path: (len(path.name), path.name))]
    records = [path for place in places for path in place.glob("*.safetensors")]
    if not records and not any((place / name).exists() for place in places for name in (FINDINGS, READINGS)):
        raise ReportError(_nothing(folder))
    notes: list[str] = []
    told = _Told(ranks=max(1, len(places) - 1))
    for place in places:
        told.read(place / FINDINGS)
    found = list(_records(records, notes))
    if not told.heard:  # findings.jsonl was wanted elsewhere
        told.take(record for _, record in found)
    notes[:0] = [f"{told.torn} lines of {FINDINGS} could not be read"] if told.torn else []
    rows, calls, rank = _readings(places, notes)
    return Story(
        folder=folder,
        findings=tuple(told.findings),
        counts=tuple(told.counts),
        verdicts=tuple(told.verdicts),
        end=told.ends[-1] if told.ends and not told.open else None,
        runs=len(told.ends),
        ranks=told.ranks,
        rows=rows,
        calls=calls,
        rank=rank,
        records=tuple(found),
        notes=tuple(notes),
    )


def _nothing(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is no directory: name the run directory, which holds {FINDINGS}"
    below = sorted(path.parent for path in folder.glob(f"*/{FINDINGS}"))
    hint = f"; did you mean {below[-1]}?" if below else ": name the run directory, which holds it"
    return f"there is no {FINDINGS} in {folder}{hint}"


@dataclass
class _Told:
    """The lines of findings.jsonl, of one process after the other."""

    ranks: int
    findings: list[Finding] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)
    torn: int = 0
    open: bool = False
    heard: bool = False

    def read(self, path: Path) -> None:
        for line in _lines(path):
            try:
                self._line(json.loads(line))
            except (ValueError, ValidationError, LookupError, TypeError, AttributeError):
                self.torn += 1

    def take(self, records: Iterable[Record]) -> None:
        """What flight records say of the calls in which each code was first found."""
        for record in records:
            self.findings += record.findings
            self.counts += (len(finding.affected) for finding in record.findings)
            self.verdicts += record.verdicts

    def _line(self, line: dict[str, Any]) -> None:
        self.heard = True
        self.open = line["type"] != "end"
        if line["type"] == "finding":
            self.findings.append(self._finding(line))
            self.counts.append(int(line.get("utterance_count", 0)))
        elif line["type"] == "verdict":
            self.verdicts.append(self._verdict(line))
        elif line["type"] == "end":
            self.ends.append(line)

    def _finding(self, line: dict[str, Any]) -> Finding:
        known = {name: value for name, value in line.items() if name not in HIDDEN}
        return Finding.model_validate({**known, "ranks": self.ranks})

    def _verdict(self, line: dict[str, Any]) -> Verdict:
        """A verdict with the findings that were written before it."""
        before = [finding for finding in self.findings if finding.step == line["step"]]
        root = [finding for finding in before if (finding.code, finding.cause) == (line["code"], line["cause"])][-1]
        also = {finding.code: finding for finding in before if finding.code in line["also"]}
        ruled_out = tuple(line.get("ruled_out", ()))
        return Verdict(root=root, also=tuple(also.values()), ruled_out=ruled_out, action=line.get("action", "log"))


def _lines(path: Path) -> Iterator[str]:
    if path.exists():
        text = path.read_text(encoding="utf-8", errors="replace")
        yield from (
            line for line in text.split("\n") if line
        )  # a transcript may hold what splitlines() takes for a line


def _readings(places: Sequence[Path], notes: list[str]) -> tuple[tuple[dict[str, Any], ...], int, str]:
    """The rows of the first process that left some."""
    for place in places:
        rows = []
        calls = torn = 0
        for line in _lines(place / READINGS):
            try:
                row = {name: _number(value) for name, value in json.loads(line).items()}
                rows += [row] if isinstance(row.get("step"), int) else []
                calls = calls or int(row.get("calls", 0))
            except (ValueError, TypeError, AttributeError):
                torn += 1
        if torn:
            notes.append(f"{torn} lines of {READINGS} could not be read")
        if rows:
            return tuple(rows), max(calls, len(rows)), "" if place is places[0] else place.name
    return (), 0, ""


def _number(value: Any) -> Any:
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _records(paths: Sequence[Path], notes: list[str]) -> Iterator[tuple[Path, Record]]:
    found = []
    for path in paths:
        try:
            record = read(path)
            found.append((record.where.step, path.name, path, record))
        except (RecordError, ValidationError, KeyError) as error:
            notes.append(str(error))
    yield from ((path, record) for _, _, path, record in sorted(found, key=lambda item: item[:2]))


def save(text: str, path: Path) -> Path:
    """Write a file under a temporary name, then give it its own.

    Raises
    ------
    ReportError
        When it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="\n")
        temporary.replace(path)
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path
