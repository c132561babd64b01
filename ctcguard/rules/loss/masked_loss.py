"""CTC503 masked-loss."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class MaskedLoss(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC503"
    severity = Severity.WARNING
    wants = ("losses", "input_lengths", "target_lengths", "adjacent_repeats", "zero_infinity")
    causes = ("zero-infinity", "large-constant")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
