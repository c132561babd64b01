"""detection.md: the summary, the whole table, and what could not be run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchmarks.detection.corpus import Program
from benchmarks.detection.oracle import Cell, summary
from benchmarks.detection.tools import ALL
from benchmarks.detection.tools._tool import Tool

Cells = dict[str, dict[str, Cell]]
"""By pair, then by tool; a cell that was not measured is not there."""

LEGEND = """\
A cell holds the number of optimizer steps that had been taken when the tool first raised an alarm about the broken
program, **in bold** if what it said names the cause. `f`: the framework itself refused the program, whatever tool was
attached. `—`: nobody noticed. `wolf`: the tool raises alarms about the fixed program too, so that they say nothing (in
brackets: the step of its first alarm that the fixed program does not give). `×`: the tool could not look at this pair;
the error is below. `?`: not measured since the pair was changed. An empty cell: the tool is for another framework.
"Told" is what ctcguard is told and no other tool can be. Where it gives more than one alert, their number follows.\
"""
BEGIN = """\
# Who notices, and when

Each pair of [tests/failures](../../tests/failures) is a broken program made from a public report, and the same program
with one line put right. Every tool is attached from outside to the unchanged programs, each in a process of its own.
Written by `python benchmarks/detection/run.py`.\
"""
COUNTED = """\
## What is counted

An alarm is an exception of the tool's, a warning of its, or an entry in its record. It counts if the tool is silent on
the fixed program; else the tool cries wolf. The cause is named if a message has one of the words that
[causes.py](causes.py) lists for it, or if its traceback shows the wrong line; of ctcguard, code and cause of the first
verdict have to be those that the pair expects besides. What the framework refuses by itself counts for every tool.

The pairs are also ctcguard's own tests, which it has to pass. The table says what other tools see of these mistakes; it
does not say how ctcguard does on mistakes that nobody wrote a pair for.\
"""
TOLD = """\
{told} of the {pairs} pairs tell ctcguard what no other tool can be told: {kinds}. Of the other {rest}, which are plain
`ctcguard run`, it noticed {noticed} and named the cause of {named}.\
"""
KINDS = {
    "vocabulary": "the vocabulary",
    "own loss": "a loss that is not of the framework",
    "probe_model": "to run the model again on its first batch (`probe_model`)",
    "thresholds": "the thresholds of a rule about how training goes, which waits for thousands of steps otherwise",
}
HEAD = (
    "tool",
    "pairs",
    "noticed",
    "of these by the framework itself",
    "cause named",
    "false alarms on fixed programs",
    "could not run",
    "noticed, false alarms forgiven",
    "median step",
    "alerts a broken run",
)


def page(corpus: list[Program], cells: Cells, versions: Mapping[str, str]) -> str:
    """The whole page; ``versions`` are those of the packages."""
    made_with = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [
        BEGIN,
        short(cells),
        f"Measured with {made_with}.",
        COUNTED,
        told(corpus, cells),
        by_framework(corpus, cells),
        "## How the tools were attached",
        "\n".join(f"- **{tool.title}**: {tool.how}." for tool in ALL),
        "## All pairs",
        LEGEND,
        whole(corpus, cells),
        "## What could not be run",
        failures(cells),
    ]
    return "\n\n".join(parts) + "\n"


def column(tool: type[Tool], cells: Cells) -> list[Cell]:
    """All that was measured of a tool."""
    return [row[tool.name] for row in cells.values() if tool.name in row]


def short(cells: Cells) -> str:
    """One line a tool."""
    lines = [HEAD]
    for tool in ALL:
        found = summary(column(tool, cells))
        if not found["pairs"]:
            continue
        alerts = found["alerts_per_noticed"] if tool.name == "ctcguard" else None
        lines.append(
            (
                tool.title,
                str(found["pairs"]),
                _share(found["noticed"], found["pairs"]),
                str(found["by_framework"]),
                _share(found["named"], found["pairs"]),
                str(found["cries_wolf"]),
                str(found["failed"]),
                _share(found["forgiven"], found["pairs"]),
                "—" if found["median_step"] is None else f"{found['median_step']:g}",
                "" if alerts is None else f"{alerts:g}, at most {found['most_alerts']}",
            )
        )
    return _table(lines, numbers_from=1)


def told(corpus: list[Program], cells: Cells) -> str:
    """What ctcguard was told, and what it found without."""
    plain = [
        cells[each.pair.name]["ctcguard"] for each in corpus if not each.told and "ctcguard" in cells[each.pair.name]
    ]
    count = {kind: sum(kind in each.told for each in corpus) for kind in KINDS}
    return TOLD.format(
        told=sum(bool(each.told) for each in corpus),
        pairs=len(corpus),
        kinds=", ".join(f"{KINDS[kind]} ({number})" for kind, number in count.items()),
        rest=len(plain),
        noticed=summary(plain)["noticed"],
        named=summary(plain)["named"],
    )


def by_framework(corpus: list[Program], cells: Cells) -> str:
    """Noticed and named, by the folder of the pair."""
    kinds = ("torch", "hf", "jax")
    lines = [("tool", *(f"{kind}: {what}" for kind in kinds for what in ("noticed", "cause named")))]
    for tool in ALL:
        line = [tool.title]
        for kind in kinds:
            found = summary(
                column(tool, {each.pair.name: cells[each.pair.name] for each in corpus if each.kind == kind})
            )
            pairs = found["pairs"]
            line += [_share(found[what], pairs) if pairs else "" for what in ("noticed", "named")]
        lines.append(tuple(line))
    return _table(lines, numbers_from=1)


def whole(corpus: list[Program], cells: Cells) -> str:
    """One line a pair."""
    lines = [("pair", "framework", "record", "expected", "told", *(tool.title for tool in ALL))]
    for each in corpus:
        pair = each.pair
        link = f"[{pair.path.stem}](../../tests/failures/{pair.name}.py)"
        shown = (_cell(tool, each.kind, cells[pair.name].get(tool.name)) for tool in ALL)
        verdict = f"{pair.expects.code} {pair.expects.cause}"
        lines.append((link, each.kind, pair.record, verdict, ", ".join(each.told), *shown))
    return _table(lines, numbers_from=5)


def _cell(tool: type[Tool], kind: str, cell: Cell | None) -> str:
    if kind not in tool.folders:
        return ""
    if cell is None:
        return "?"
    if cell.noticed is not None:
        step = f"**{cell.noticed}**" if cell.named else str(cell.noticed)
        refused = " f" if cell.by_framework and tool.name != "framework" else ""
        several = f" ({cell.alerts} alerts)" if tool.name == "ctcguard" and cell.alerts > 1 else ""
        return step + refused + several
    if cell.failure:
        return "×"
    if cell.cries_wolf:
        return "wolf" if cell.forgiven is None else f"wolf ({cell.forgiven})"
    return "—"


def failures(cells: Cells) -> str:
    """By tool and error, the pairs."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, row in cells.items():
        for tool in ALL:
            if tool.name in row and row[tool.name].failure:
                text = " ".join(row[tool.name].failure.split()).replace("`", "'")
                found.setdefault((tool.title, text[:300]), []).append(name)
    if not found:
        return "Nothing."
    return "\n".join(f"- {tool}: `{error}`: {', '.join(names)}" for (tool, error), names in sorted(found.items()))


def _share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.0f} %)" if whole else "0"


def _table(lines: Iterable[tuple[str, ...]], numbers_from: int) -> str:
    head, *rest = lines
    rule = ["---" if column < numbers_from else "--:" for column in range(len(head))]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in (head, tuple(rule), *rest)
    )
