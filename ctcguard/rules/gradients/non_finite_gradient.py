"""CTC601 non-finite-gradient."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class NonFiniteGradient(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC601"
    severity = Severity.ERROR
    wants = ("gradient_abs_max",)
    causes = ("loss", "padded-frames", "backward")
    explains = ()
    aftermath = ("CTC401", "CTC402", "CTC403", "CTC501", "CTC502", "CTC503", "CTC504", "CTC601")

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
