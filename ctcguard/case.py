"""One CTC call on its way through the guard, and what its readings say in short."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctcguard.call import CTCCall
from ctcguard.finding import Finding, Phase, Where
from ctcguard.readings import Readings


@dataclass(slots=True)
class Passing:
    """A call that is sound at a glimpse: it passes without becoming a case, unless somebody asks for it.

    Attributes
    ----------
    make : callable
        Makes the `CTCCall`, without its scores.
    phase, step, micro_step
        As in `Where`.
    seen : dict
        Its readings: those of `ctcguard.sound.glimpse`, and the losses once they are there.
    """

    make: Callable[[], CTCCall]
    phase: Phase
    step: int
    micro_step: int
    seen: dict[str, Any]

    def readings(self) -> dict[str, Any]:
        """What was seen, as probes have it."""
        made = {name: value() if callable(value) else value for name, value in self.seen.items()}
        return {name: np.asarray(value, float) if isinstance(value, list) else value for name, value in made.items()}


@dataclass(slots=True)
class Case:
    """One CTC call on its way through the guard.

    Attributes
    ----------
    call : CTCCall
        What was called.
    where : Where
        Fixed when the call is made, though it may be judged later.
    readings : Readings
        Grows as probes are read.
    findings, healthy, ran
        What the rules said so far, and the codes of those that ran.
    written : int
        How many of the findings were reported already.
    held : array, (batch, time, classes), or None
        The scores, where ``call`` has a stand-in for them; empty where they are gone.
    record : str
        The name of its flight record, or empty.
    """

    call: CTCCall
    where: Where
    readings: Readings
    findings: list[Finding] = field(default_factory=list)
    healthy: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    ran: set[str] = field(default_factory=set)
    written: int = 0
    held: Any = None
    record: str = ""

    def again(
        self,
        where: Where,
        values: Mapping[str, Any],
        findings: Iterable[Finding],
        healthy: Iterable[tuple[str, tuple[str, ...]]],
    ) -> Case:
        """The same call with what came to be known of it, or of its step, after it was judged."""
        return Case(self.call, where, self.readings.with_values(values), [*findings], [*healthy])


def suspicion(readings: Readings) -> tuple[bool, bool]:
    """How much a call explains of a bad gradient: a bad loss most, bad padding next."""
    bad_loss = "losses" in readings and not bool(np.isfinite(readings.column("losses")).all())
    bad_padding = "non_finite_padding_frames" in readings and readings.highest("non_finite_padding_frames") != 0
    return bad_loss, bad_padding


def worst_of(cases: Sequence[Case]) -> Case | None:
    """The case of a step that explains most of a bad gradient."""
    return max(cases, key=lambda case: suspicion(case.readings)) if len(cases) > 1 else next(iter(cases), None)


def summary(readings: Readings) -> dict[str, float]:
    """The scalars of a call that are worth a curve, by name."""
    curves: dict[str, Any] = {}
    if "losses" in readings:
        curves |= {
            "loss_min_nats": readings.lowest("losses"),
            "loss_median_nats": np.median(readings.column("losses")),
            "loss_max_nats": readings.highest("losses"),
        }
    if "score_max" in readings:
        curves["log_prob_max"] = readings.highest("score_max")
    if "logsumexp_max" in readings:
        curves["logsumexp_abs_max"] = np.max(np.abs([readings["logsumexp_min"], readings["logsumexp_max"]]))
    if "blank_fraction" in readings:
        curves["blank_fraction"] = readings["blank_fraction"]
    if "adjacent_repeats" in readings:
        needed = readings.column("target_lengths") + readings.column("adjacent_repeats")
        curves["infeasible_fraction"] = np.mean(~(readings.column("input_lengths") >= needed))
    return {name: float(value) for name, value in curves.items()}
