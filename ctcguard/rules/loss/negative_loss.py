"""CTC501 negative-loss."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class NegativeLoss(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC501"
    severity = Severity.ERROR
    wants = ("losses", "frames")
    causes = ("negative",)
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
