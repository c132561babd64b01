"""CTC504 implausible-loss."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class ImplausibleLoss(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC504"
    severity = Severity.ERROR
    wants = ("losses", "alignment_cost", "frame_max_sum", "input_lengths", "target_lengths", "adjacent_repeats")
    causes = ("above-one-alignment", "below-all-alignments", "zero-without-certainty")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
