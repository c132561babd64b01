"""The figures of a benchmark run, as JSON and as Markdown."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import groupby
from typing import Any

from benchmarks.clean.corpus import Record
from ctcguard import Severity
from ctcguard.rules import ALL

ARMS_IN_WORDS = (
    "A setting is trained once for each seed. Half of the runs have the default settings of a guard, half measure "
    "everything at every call and judge later."
)
PACKAGES = ("torch", "transformers", "jax", "optax", "flax")


@dataclass(frozen=True)
class Figures:
    """Sums over runs; ``with_…`` count runs, ``runs_by_code`` says how many of them hold a finding of that code."""

    command: str
    runs: int
    settings: int
    steps: int
    calls: int
    with_errors: int
    with_warnings: int
    with_information: int
    runs_by_code: dict[str, dict[str, int]]
    rules: tuple[str, ...]
    cpu_seconds: int
    machine: str
    versions: dict[str, str]


def summary(command: str, records: Sequence[Record]) -> Figures:
    """Count by run: a run that says the same a hundred times counts once."""
    by_code = {severity.value: codes(records, severity) for severity in Severity}
    return Figures(
        command=command,
        runs=len(records),
        settings=len({(record.run.setting.family, record.run.setting.name) for record in records}),
        steps=sum(record.steps for record in records),
        calls=sum(record.calls for record in records),
        with_errors=holding(records, Severity.ERROR),
        with_warnings=holding(records, Severity.WARNING),
        with_information=holding(records, Severity.INFORMATION),
        runs_by_code=by_code,
        rules=tuple(rule.code for rule in ALL),
        cpu_seconds=round(sum(record.seconds for record in records)),
        machine=f"{platform.machine()}, one core, Python {platform.python_version()}",
        versions={name: version(name) for name in PACKAGES},
    )


def holding(records: Iterable[Record], severity: Severity) -> int:
    """How many runs hold a finding of that severity."""
    return sum(bool(record.of(severity)) for record in records)


def codes(records: Iterable[Record], severity: Severity) -> dict[str, int]:
    """In how many runs each code was found with that severity."""
    found = Counter(code for record in records for code in {f"{f.code} {f.name}" for f in record.of(severity)})
    return dict(sorted(found.items()))


def as_json(figures: Figures, records: Sequence[Record]) -> str:
    """One line for each run, so that two versions can be compared."""
    head = json.dumps(asdict(figures), indent=1, ensure_ascii=False)
    lines = ",\n  ".join(json.dumps(_row(record), ensure_ascii=False) for record in records)
    return f'{head[:-2]},\n "records": [\n  {lines}\n ]\n}}\n'


def _row(record: Record) -> dict[str, Any]:
    first, last = record.edges
    row = {
        "run": record.run.title(),
        "framework": record.run.setting.framework,
        "guard": ("defaults", "no budget, later")[record.run.arm],
        "steps": record.steps,
        "calls": record.calls,
        "first_loss": float(f"{first:.4g}"),
        "last_loss": float(f"{last:.4g}"),
    }
    for severity in Severity:
        row[severity.value] = sorted({f"{f.code} {f.cause}" for f in record.of(severity)})
    return row


def in_words(figures: Figures) -> str:
    """The totals."""
    counts = f"{figures.runs} runs of {figures.settings} settings, {figures.steps} optimizer steps, {figures.calls} CTC"
    found = {
        "an error": figures.with_errors,
        "a warning": figures.with_warnings,
        "information": figures.with_information,
    }
    alarms = ", ".join(f"{runs} runs with {what}" for what, runs in found.items())
    versions = ", ".join(f"{name} {version}" for name, version in figures.versions.items())
    work = f"{figures.cpu_seconds} s of CPU ({figures.machine}, {versions})"
    return f"{counts} calls, {len(figures.rules)} rules: {alarms}; {work}"


def as_markdown(figures: Figures, records: Sequence[Record]) -> str:
    """Totals, a line for each family, a line for each setting, the false alarms."""
    parts = [
        "# False alarms on healthy trainings",
        f"    {figures.command}",
        in_words(figures),
        ARMS_IN_WORDS,
        "## Findings by code",
        _table(("severity", "code", "runs"), _by_code(figures)),
        "## Families",
        _table(("family", "framework", "settings", *COUNTED), _families(records)),
        *_alarms(records),
        "## Settings",
        "Loss: mean of the first and of the last ten steps of the first run, as the training logs it.",
        _table(("setting", "loss", *COUNTED), _settings(records)),
    ]
    return "\n\n".join(parts) + "\n"


COUNTED = ("runs", "steps", "calls", "errors", "warnings", "information")
Row = tuple[object, ...]


def _counted(records: Sequence[Record]) -> Row:
    findings = [
        ", ".join(f"{code.split()[0]} in {n}" for code, n in codes(records, s).items()) or "0" for s in Severity
    ]
    return (len(records), sum(r.steps for r in records), sum(r.calls for r in records), *findings)


def _families(records: Sequence[Record]) -> list[Row]:
    grouped = groupby(records, key=lambda record: record.run.setting.family)
    rows: list[Row] = []
    for name, group in grouped:
        held = list(group)
        frameworks = sorted({record.run.setting.framework for record in held})
        rows.append((name, ", ".join(frameworks), len({r.run.setting.name for r in held}), *_counted(held)))
    return rows


def _settings(records: Sequence[Record]) -> list[Row]:
    rows: list[Row] = []
    for _, group in groupby(records, key=lambda record: (record.run.setting.family, record.run.setting.name)):
        held = list(group)
        setting, (first, last) = held[0].run.setting, held[0].edges
        rows.append((f"{setting.family}: {setting.name}", f"{first:.3g} → {last:.3g}", *_counted(held)))
    return rows


def _by_code(figures: Figures) -> list[Row]:
    rows = [(severity, code, runs) for severity, found in figures.runs_by_code.items() for code, runs in found.items()]
    return [*rows] or [("none", "", 0)]


def _alarms(records: Sequence[Record]) -> list[str]:
    rows: list[Row] = []
    for record in records:
        first = {(f.code, f.cause): f for f in reversed(record.alarms())}
        rows += [(record.run.title(), f.severity, f.code, f.cause, f.step, f.message) for f in first.values()]
    head = ("run", "severity", "code", "cause", "first step", "message")
    return ["## False alarms", _table(head, rows)] if rows else []


def _table(head: Sequence[str], rows: Iterable[Row]) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
