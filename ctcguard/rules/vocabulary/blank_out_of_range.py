"""CTC103 blank-out-of-range."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class BlankOutOfRange(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC103"
    severity = Severity.ERROR
    wants = ("classes", "blank")
    causes = ("no-class-for-blank", "negative")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
