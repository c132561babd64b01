"""CTC404 probabilities-as-logits."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class ProbabilitiesAsLogits(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC404"
    severity = Severity.ERROR
    wants = ("expects", "sample_min", "sample_max", "row_sum_error", "softmax_dtype")
    causes = ("softmax-before-loss",)
    explains = ("CTC504",)

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
