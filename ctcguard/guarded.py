"""What every guarded thing (a watched block, a guarded step) shows of its guard."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ctcguard.finding import Finding
from ctcguard.guard import Guard
from ctcguard.verdict import Verdict


class Guarded:
    """Base of what integrations hand out.

    Parameters
    ----------
    guard : Guard
        Counts and judges.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    @property
    def findings(self) -> list[Finding]:
        """What was found so far."""
        return self.guard.findings

    @property
    def verdicts(self) -> list[Verdict]:
        """One for each root cause found so far."""
        return self.guard.verdicts

    @property
    def run_dir(self) -> Path:
        """Where findings.jsonl goes."""
        return self.guard.run_dir

    def batch(self, ids: Iterable[object]) -> None:
        """Name the utterances of the coming calls, until the next optimizer step; findings then show these names."""
        self.guard.batch(ids)
