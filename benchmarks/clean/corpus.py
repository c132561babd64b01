"""Healthy trainings that look suspicious: what a setting is, how one run of it is played, and what is counted.

A training is written as its user would write it, as a generator: it yields its loss once for each optimizer step. No
setting may take a finding into account: whatever a guard says above information is a false alarm, and is counted.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from ctcguard import CTCGuard, CTCVerdictError, Finding, Guard, Severity, guard_step, watch

LEAST_STEPS = 50
EDGE_STEPS = 10
"""Losses at either end of a run, of which the means are shown."""
ARMS: tuple[dict[str, Any], ...] = ({}, {"budget": None, "on_error": "log", "on_warning": "log"})
"""Settings of the guard, in turns over the seeds: the defaults; everything measured at every call and judged later."""

Losses = Iterator[float]
Settings = dict[str, Any]


class NotHealthyError(Exception):
    """The training itself is broken, so that it proves nothing about a guard."""


@dataclass(frozen=True)
class Setting:
    """A healthy training of one family.

    ``train`` takes a seed, and except in a loop of PyTorch also what guards it: ``CTCGuard`` or ``guard_step``, with
    the settings bound. ``options`` are the guard's (a vocabulary), beside the defaults.
    """

    name: str
    family: str
    framework: str
    train: Callable[..., Losses]
    seeds: int
    options: Settings = field(default_factory=dict)

    def runs(self, first_seed: int = 0) -> list[Run]:
        """One for each seed."""
        return [Run(self, first_seed + number) for number in range(self.seeds)]


@dataclass(frozen=True)
class Run:
    """A setting with its seed."""

    setting: Setting
    seed: int

    @property
    def arm(self) -> int:
        """Which settings of the guard it gets."""
        return self.seed % len(ARMS)

    def title(self) -> str:
        """What it is called on the command line and in the record."""
        return f"{self.setting.family}/{self.setting.name}/{self.seed}"


class Family:
    """The settings of one module; as a decorator it adds one.

    Parameters
    ----------
    name : str
        The first part of the titles of its runs.
    framework : {"torch loop", "HF Trainer", "JAX"}
        How its trainings are guarded.
    """

    def __init__(self, name: str, framework: str = "torch loop") -> None:
        self.name, self.framework = name, framework
        self.settings: list[Setting] = []

    def __call__(
        self, name: str = "", seeds: int = 3, **options: Any
    ) -> Callable[[Callable[..., Losses]], Callable[..., Losses]]:
        def add(train: Callable[..., Losses]) -> Callable[..., Losses]:
            self.add(name or train.__name__.replace("_", " "), train, seeds, **options)
            return train

        return add

    def add(self, name: str, train: Callable[..., Losses], seeds: int = 3, **options: Any) -> None:
        """One more setting."""
        assert name not in {setting.name for setting in self.settings}, f"two settings are called {name!r}"
        self.settings.append(Setting(name, self.name, self.framework, train, seeds, options))

    def adopt(self, settings: Iterable[Setting], **options: Any) -> None:
        """Settings of another family once more, with other options for the guard."""
        self.settings += [
            replace(setting, family=self.name, seeds=min(2, setting.seeds), options=setting.options | options)
            for setting in settings
        ]


@dataclass(frozen=True)
class Record:
    """What one run left: ``counts`` are findings by code, ``findings`` the first hundred of each code and cause."""

    run: Run
    steps: int
    calls: int
    losses: tuple[float, ...]
    seconds: float
    findings: tuple[Finding, ...]
    counts: Counter[str]

    def of(self, severity: Severity) -> list[Finding]:
        """Findings of that severity."""
        return [finding for finding in self.findings if finding.severity is severity]

    def alarms(self) -> list[Finding]:
        """Errors and warnings."""
        return [finding for finding in self.findings if finding.severity is not Severity.INFORMATION]

    @property
    def edges(self) -> tuple[float, float]:
        """Mean loss of the first and of the last steps; NaN for a run that was stopped before its first."""
        first, last = self.losses[:EDGE_STEPS], self.losses[-EDGE_STEPS:]
        return (fmean(first), fmean(last)) if first else (math.nan, math.nan)


def play(run: Run) -> Record:
    """Train once under guard.

    Raises
    ------
    NotHealthyError
        When the training breaks by itself: a loss that is not finite, or too few steps.
    """
    started = time.process_time()
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        settings = {"sinks": ("jsonl",), "run_dir": Path(folder) / "guard"} | ARMS[run.arm] | run.setting.options
        guarding = GUARDING[run.setting.framework](run, settings)
        stopped = False
        try:
            with guarding:
                for loss in guarding.training:
                    losses.append(loss)  # noqa: PERF402 - one by one: those before a verdict are kept
        except CTCVerdictError:
            stopped = True
    if not stopped:
        _see_that_it_is_healthy(run, losses)
    guard = guarding.guard()
    counts: Counter[str] = Counter()
    for (code, _), count in guard.reporter.counts.items():
        counts[code] += count
    seconds = time.process_time() - started
    return Record(run, guard.step, guard.calls, tuple(losses), seconds, tuple(guard.findings), counts)


def _see_that_it_is_healthy(run: Run, losses: list[float]) -> None:
    if len(losses) < LEAST_STEPS:
        raise NotHealthyError(f"{run.title()}: {len(losses)} optimizer steps, fewer than {LEAST_STEPS}")
    for step, loss in enumerate(losses):
        if not math.isfinite(loss):
            raise NotHealthyError(f"{run.title()}: its loss is {loss} at step {step}")


class InALoop:
    """``with watch():`` around the training."""

    def __init__(self, run: Run, settings: Settings) -> None:
        self.watch = watch(**settings)
        self.training: Losses = run.setting.train(run.seed)

    def __enter__(self) -> None:
        self.watch.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.watch.__exit__(*error)

    def guard(self) -> Guard:
        """The guard that was there."""
        return self.watch.guard


class InTheTrainer:
    """The training makes one callback."""

    def __init__(self, run: Run, settings: Settings) -> None:
        self.callback = CTCGuard(**settings)
        self.training: Losses = run.setting.train(run.seed, self.callback)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        self.callback.finish()

    def guard(self) -> Guard:
        """The guard that was there."""
        assert self.callback.watch is not None
        return self.callback.watch.guard


class InJax:
    """The training has its step guarded."""

    def __init__(self, run: Run, settings: Settings) -> None:
        self.made: list[Any] = []
        self.guard_step = partial(guard_step, **settings)
        self.training: Losses = run.setting.train(run.seed, self.guarded)

    def guarded(self, step: Callable[..., Any]) -> Any:
        """The step under guard."""
        self.made.append(self.guard_step(step))
        return self.made[-1]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: Any) -> None:
        for step in self.made:
            step.close()

    def guard(self) -> Guard:
        """The guard that was there."""
        (step,) = self.made
        return step.guard


GUARDING: dict[str, Callable[[Run, Settings], Any]] = {
    "torch loop": InALoop,
    "HF Trainer": InTheTrainer,
    "JAX": InJax,
}
