"""CTC903 alert-undelivered."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class AlertUndelivered(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC903"
    severity = Severity.WARNING
    wants = ("undelivered",)
    causes = ("sink",)

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
