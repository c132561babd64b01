"""wandb, once the user's own program uses it: nothing is imported or started for the guard's sake."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ctcguard.finding import Finding
from ctcguard.settings import Settings
from ctcguard.sinks import Sink
from ctcguard.verdict import Verdict


class LateWandb:
    """Hands everything on to `WandbAlerts` as soon as the program has imported wandb; before that it does nothing."""

    name = "wandb"

    def __init__(self) -> None:
        self.files_of_run: Callable[[], Path] | None = None
        self._sink: Sink | None = None

    def _ready(self) -> Sink | None:
        # Not there yet while it is being imported, and never in a folder of that name or where an import is blocked.
        if self._sink is None and hasattr(sys.modules.get("wandb"), "run"):
            from ctcguard_integrations.wandb_alerts import WandbAlerts

            self._sink = WandbAlerts()
            self._sink.files_of_run = self.files_of_run
        return self._sink

    @property
    def active(self) -> bool:
        """Whether this process holds a run."""
        sink = self._ready()
        return sink is not None and getattr(sink, "active", False)

    def finding(self, finding: Finding) -> None:
        """Hand on."""
        if sink := self._ready():
            sink.finding(finding)

    def verdict(self, verdict: Verdict) -> None:
        """Hand on."""
        if sink := self._ready():
            sink.verdict(verdict)

    def readings(self, scalars: Mapping[str, float], step: int) -> None:
        """Hand on."""
        if sink := self._ready():
            sink.readings(scalars, step)

    def end(self, record: Mapping[str, Any]) -> None:
        """Hand on."""
        if sink := self._ready():
            sink.end(record)


def outer_sinks(settings: Settings) -> list[Sink]:
    """The sinks that need another package, as the settings ask for them."""
    return [LateWandb()] if settings.sinks == "auto" or "wandb" in settings.sinks else []
