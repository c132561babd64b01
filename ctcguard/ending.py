"""The last words of a run on the screen: what was found, what it cost, and where to look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ctcguard._words import plural
from ctcguard.finding import Severity
from ctcguard.report import missing
from ctcguard.sinks.console import STYLES
from ctcguard.verdict import Verdict

TELLING_STEPS = 10
"""Steps from which on the guard's share of the time is worth saying: the first calls load and compile."""
WAYS = {"raise": "stopped", "stop": "ended", "alert": "warned", "log": "noted"}


def worst_of(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The first of the worst severity."""
    return min(verdicts, key=lambda verdict: verdict.root.severity.rank, default=None)


def headline(verdicts: Sequence[Verdict]) -> Text:
    """One line: how many causes of each severity, and when the first of the worst was met."""
    worst = worst_of(verdicts)
    if worst is None:
        return Text("ctcguard · nothing found", style="bold green")
    counts = Counter(verdict.root.severity for verdict in verdicts)
    said = ", ".join(plural(counts[severity], severity.value) for severity in Severity if counts[severity])
    moment = "before training" if worst.root.phase == "setup" else f"at step {worst.step:,}"
    return Text(f"ctcguard · {said} · {WAYS[worst.action]} {moment}", style=STYLES[worst.root.severity])


def rows(verdicts: Sequence[Verdict], end: Mapping[str, Any], run_dir: Path) -> list[tuple[str, str]]:
    """The body as ``(label, text)`` pairs.

    Parameters
    ----------
    verdicts : sequence of Verdict
        What was announced.
    end : mapping
        The last line of findings.jsonl.
    run_dir : Path
        Files that are not there are not named.
    """
    steps, calls = plural(end["steps"], "step"), plural(end["calls"], "CTC call")
    cost = f"; the guard took {end['overhead_fraction']:.1%} of the time" if end["steps"] >= TELLING_STEPS else ""
    found = [("run", f"{calls}, {steps}{cost}")]
    folder = near(run_dir)
    if run_dir.is_dir() and verdicts:
        found.append(("look", folder if missing() else f"ctcguard report {folder}"))
    worst = worst_of(verdicts)
    names = [f"{worst.step}-{finding.code}.safetensors" for finding in worst.findings()] if worst else []
    record = next((run_dir / name for name in names if (run_dir / name).exists()), None)
    return [*found, ("replay", f"ctcguard replay {near(record)}")] if record else found


def near(path: Path) -> str:
    """A path as a person would type it: from where they are, if it is below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def ending(verdicts: Sequence[Verdict], end: Mapping[str, Any], run_dir: Path) -> Panel | Text:
    """A panel where something was found, else one line."""
    body = rows(verdicts, end, run_dir)
    if not verdicts:
        return Text.assemble(headline(verdicts), f": {body[0][1]}")
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, justify="right", min_width=7)
    table.add_column(overflow="fold")
    for label, text in body:
        table.add_row(Text(label, style="dim"), Text(text, style="bold" if label in ("look", "replay") else ""))
    title = headline(verdicts)
    return Panel(Group(table), title=title, title_align="left", border_style=title.style)
