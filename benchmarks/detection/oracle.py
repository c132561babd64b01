"""The same judgement of every tool: noticed when, cause named or not, and whether it cries wolf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.detection import causes
from benchmarks.detection.observation import Alarm, Ending, Observation

Runs = Mapping[str, Mapping[str, Observation]]
"""By tool, then by ``broken`` and ``fixed``."""


@dataclass(frozen=True)
class Cell:
    """One tool and one pair.

    Attributes
    ----------
    noticed : int, optional
        Optimizer steps taken when the tool first raised an alarm on the broken program, or when the framework itself
        refused it; None if neither did, or if the tool raises alarms on the fixed program too.
    by_framework : bool
        Whether it was the framework that noticed, with or without the tool.
    named : bool
        Whether what was said names the cause.
    cries_wolf : bool
        Whether the tool raises alarms on the fixed program.
    forgiven : int, optional
        When it would have been noticed if alarms that both programs give did not count for or against it.
    alerts : int
        How many alarms the broken program gave.
    failure : str
        Why the tool could not look at the pair.
    """

    noticed: int | None = None
    by_framework: bool = False
    named: bool = False
    cries_wolf: bool = False
    forgiven: int | None = None
    alerts: int = 0
    failure: str = ""


@dataclass(frozen=True)
class Expected:
    """What is wrong with the broken program: the verdict of the pair's header, and the line."""

    code: str
    cause: str
    line: int


def cell(tool: str, runs: Runs, expected: Expected) -> Cell:
    """Judge one tool on one pair; ``framework`` has to be among the runs."""
    refused = _refusal(runs)
    broken, fixed = (_own(tool, twin, runs) for twin in ("broken", "fixed"))
    failure = broken.failure or fixed.failure
    alarms = [] if failure else broken.alarms
    common = {alarm.kind for alarm in fixed.alarms}
    wolf = bool(fixed.alarms) and not failure
    noticed = _first([] if wolf else alarms, refused)
    forgiven = _first([alarm for alarm in alarms if alarm.kind not in common], refused)
    return Cell(
        noticed=noticed,
        by_framework=noticed is not None and (wolf or not alarms or min(alarm.step for alarm in alarms) > noticed),
        named=noticed is not None and _named(tool, [] if wolf else alarms, refused, expected),
        cries_wolf=wolf,
        forgiven=forgiven,
        alerts=broken.count,
        failure=failure,
    )


def _own(tool: str, twin: str, runs: Runs) -> Observation:
    """What the tool saw; an exception that neither it nor the program alone raises is its failure."""
    seen, alone = runs[tool][twin], runs["framework"][twin]
    if seen.failure or seen.ending is None or _same(seen.ending, alone.ending):
        return seen
    if any(alarm.message.startswith(seen.ending.message) for alarm in seen.alarms):
        return seen
    return Observation(failure=f"{seen.ending.kind}: {seen.ending.message}", steps=seen.steps)


def _refusal(runs: Runs) -> Ending | None:
    broken, fixed = (runs["framework"][twin].ending for twin in ("broken", "fixed"))
    return None if broken is None or _same(broken, fixed) else broken


def _same(one: Ending | None, other: Ending | None) -> bool:
    """The same exception: tools may wrap a call, and the numbers in a message may be of a random batch."""
    return one is not None and other is not None and one.kind == other.kind


def _first(alarms: list[Alarm], refused: Ending | None) -> int | None:
    steps = [said.step for said in (*alarms, *([refused] if refused else []))]
    return min(steps, default=None)


def _named(tool: str, alarms: list[Alarm], refused: Ending | None, expected: Expected) -> bool:
    said = [*alarms, *([refused] if refused else [])]
    if tool == "ctcguard" and alarms and alarms[0].kind != f"{expected.code} {expected.cause}":
        return False  # it says which mistake it is, so that has to be right, too, and at once
    return any(causes.names(each, expected.code, expected.cause, expected.line) for each in said)


def summary(cells: list[Cell]) -> dict[str, Any]:
    """One line of the summary: of the pairs of a tool's frameworks, how many; and when.

    Parameters
    ----------
    cells : list of Cell
        Of one tool, for the pairs that it is made for.

    Returns
    -------
    dict
        ``pairs``, and of these ``noticed``, ``by_framework`` (among the noticed), ``named``, ``forgiven``,
        ``cries_wolf`` and ``failed``; ``median_step`` of the noticed; ``alerts_per_noticed`` and ``most_alerts``, the
        mean and the largest number of alarms where the tool raised any and was believed.
    """
    noticed = [each.noticed for each in cells if each.noticed is not None]
    alerts = [each.alerts for each in cells if each.alerts and each.noticed is not None]
    return {
        "pairs": len(cells),
        "noticed": len(noticed),
        "by_framework": sum(each.by_framework for each in cells),
        "named": sum(each.named for each in cells),
        "forgiven": sum(each.forgiven is not None for each in cells),
        "cries_wolf": sum(each.cries_wolf for each in cells),
        "failed": sum(bool(each.failure) for each in cells),
        "median_step": median(noticed) if noticed else None,
        "alerts_per_noticed": round(sum(alerts) / len(alerts), 2) if alerts else None,
        "most_alerts": max(alerts, default=None),
    }
