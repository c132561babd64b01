"""CTC901 guard-blind."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class GuardBlind(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC901"
    severity = Severity.WARNING
    wants = ("calls_seen",)
    causes = ("no-ctc-call", "imported-earlier")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
