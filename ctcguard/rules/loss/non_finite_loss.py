"""CTC502 non-finite-loss."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class NonFiniteLoss(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC502"
    severity = Severity.ERROR
    wants = ("losses",)
    causes = ("nan", "infinite")
    explains = ("CTC601",)

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
