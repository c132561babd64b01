"""CTC102 blank-disagrees."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class BlankDisagrees(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC102"
    severity = Severity.ERROR
    wants = ("vocabulary", "classes", "blank")
    causes = ("other-blank", "ordinary-symbol", "special-symbol")
    explains = ("CTC203",)
    aftermath = explains

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
