"""CTC104 config-disagrees-with-head."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class ConfigDisagreesWithHead(Rule):
    """## What it does

    Checks TODO.
    """

    code = "CTC104"
    severity = Severity.WARNING
    wants = ("config_vocab_size", "classes")
    causes = ("head-replaced", "config-edited")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """TODO."""
        return None
