"""CTC204 empty-target."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class EmptyTarget(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC204"
    severity = Severity.INFORMATION
    wants = ("target_lengths",)
    causes = ("silence", "all-empty")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
