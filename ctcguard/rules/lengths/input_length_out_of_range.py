"""CTC302 input-length-out-of-range."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class InputLengthOutOfRange(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC302"
    severity = Severity.ERROR
    wants = ("input_lengths", "frames")
    causes = ("beyond-time", "below-one")
    explains = ("CTC301", "CTC502", "CTC503", "CTC504", "CTC601")

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
