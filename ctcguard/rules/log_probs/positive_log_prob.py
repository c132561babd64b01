"""CTC401 positive-log-prob."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules.log_probs._tolerance import ToleranceRule


class PositiveLogProb(ToleranceRule):
    """## What it does

    Checks TODO.
    """

    code = "CTC401"
    severity = Severity.ERROR
    wants = ("expects", "softmax_dtype", "score_max", "fits_bfloat16", "fits_float16")
    causes = ("positive",)
    explains = ("CTC501",)

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
