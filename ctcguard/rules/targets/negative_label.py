"""CTC202 negative-label."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class NegativeLabel(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC202"
    severity = Severity.ERROR
    wants = ("negative_labels", "label_min")
    causes = ("ignore-index", "padding")
    explains = ("CTC501", "CTC502", "CTC503", "CTC504", "CTC601")
    unsafe = True

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
