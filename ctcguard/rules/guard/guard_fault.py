"""CTC902 guard-fault."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class GuardFault(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC902"
    severity = Severity.WARNING
    wants = ("fault",)
    causes = ("probe", "rule", "sink", "capture")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
