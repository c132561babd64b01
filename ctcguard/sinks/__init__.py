"""Where findings go. A sink takes finished values and never answers; the guard contains its faults (CTC903)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ctcguard.finding import Finding
from ctcguard.verdict import Verdict


class Sink(Protocol):
    """What every sink can be told.

    Attributes
    ----------
    name : str
        How CTC903 calls it.
    """

    name: str

    def finding(self, finding: Finding) -> None:
        """A rule fired."""

    def verdict(self, verdict: Verdict) -> None:
        """The findings of one call were merged; ``verdict.action`` is what the guard will do next.

        Called once for each root cause of a run, before an exception leaves.
        """

    def readings(self, scalars: Mapping[str, float], step: int) -> None:
        """Scalars of one training call, by name, with the optimizer steps already taken."""

    def end(self, record: Mapping[str, Any]) -> None:
        """The run is over; ``record`` is the last line of ``findings.jsonl``."""


@runtime_checkable
class SendsFiles(Sink, Protocol):
    """A sink that also sends what lies in the run directory.

    Attributes
    ----------
    files_of_run : callable or None
        Where that is; set by the guard, None with ``redact=True``.
    """

    files_of_run: Callable[[], Path] | None
