"""CTC303 target-length-out-of-range."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class TargetLengthOutOfRange(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC303"
    severity = Severity.ERROR
    wants = ("target_lengths", "label_room", "concatenated")
    causes = ("beyond-buffer", "negative", "sum-mismatch")
    explains = ("CTC301", "CTC502", "CTC503", "CTC504", "CTC601")

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
