"""CTC101 head-too-narrow."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class HeadTooNarrow(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC101"
    severity = Severity.ERROR
    wants = ("vocabulary", "classes")
    causes = ("missing-classes",)
    explains = ("CTC104", "CTC201", "CTC501", "CTC502", "CTC503", "CTC504", "CTC601")
    aftermath = explains

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
