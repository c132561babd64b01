"""CTC403 non-finite-log-probs."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class NonFiniteLogProbs(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC403"
    severity = Severity.ERROR
    wants = ("expects", "non_finite_frames", "score_max")
    causes = ("non-finite-features", "log-of-softmax", "masking")
    explains = ("CTC401", "CTC402", "CTC502", "CTC503", "CTC504", "CTC601")

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
