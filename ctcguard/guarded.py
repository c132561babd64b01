"""What every guarded thing (a watched block, a guarded step) shows of its guard."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

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

    def record(self) -> None:
        """Keep the next call that is judged, whatever is found in it, as a flight record in the run directory."""
        self.guard.record()

    def batch(self, ids: Iterable[object]) -> None:
        """Name the utterances of the coming calls, until the next optimizer step; findings then show these names."""
        self.guard.batch([name_of(name) for name in ids])

    def state_dict(self) -> dict[str, Any]:
        """What the guard remembers of the run, as plain JSON values, for a checkpoint; each rank keeps its own.

        The calls that rules about the course of training look back at, and what was reported already.
        """
        return self.guard.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, before the first step; a state that is none of ours is CTC902."""
        with self.guard.contained("load_state_dict"):
            self.guard.load_state_dict(state)


def name_of(name: object) -> str:
    """A name as text; of one that has none, its type."""
    try:
        return str(name)
    except Exception:  # noqa: BLE001 - any object of the user's: it names an utterance and must not end a training
        return f"<{type(name).__name__}>"
