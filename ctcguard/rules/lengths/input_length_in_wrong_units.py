"""CTC304 input-length-in-wrong-units."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class InputLengthInWrongUnits(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC304"
    severity = Severity.ERROR
    wants = ("input_lengths", "frames", "length_history")
    causes = ("not-subsampled", "subsampled-twice", "fraction", "seconds")
    explains = ("CTC301", "CTC302", "CTC502", "CTC503")

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
