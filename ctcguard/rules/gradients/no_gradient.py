"""CTC603 no-gradient."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class NoGradient(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC603"
    severity = Severity.ERROR
    wants = ("head_state",)
    causes = ("detached", "frozen", "not-in-optimizer", "zeroed-before-step")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
