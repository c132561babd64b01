"""CTC201 label-out-of-range."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class LabelOutOfRange(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC201"
    severity = Severity.ERROR
    wants = ("out_of_range_labels", "label_max", "classes")
    causes = ("head-too-narrow", "no-class-for-blank", "label-beyond-head")
    explains = ("CTC501", "CTC502", "CTC503", "CTC504", "CTC601")
    unsafe = True

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
