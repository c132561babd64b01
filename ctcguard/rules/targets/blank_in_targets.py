"""CTC203 blank-in-targets."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class BlankInTargets(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC203"
    severity = Severity.ERROR
    wants = ("blank_labels", "blanks_before_label", "blank")
    causes = ("padding-counted", "space-is-blank", "blank-index")
    explains = ("CTC301", "CTC501", "CTC502", "CTC503", "CTC504", "CTC601")

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
