"""PyTorch trainings with one tool each, as pairs that are made when it is their turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from benchmarks.overhead.ratios import Arm, Pair, Took, timed
from benchmarks.overhead.torch_loops import Loop, TrainerLoop

GUARDS: dict[str, dict[str, Any]] = {
    "ctcguard": {},
    "ctcguard, no budget": {"budget": None},
    "ctcguard, contract only": {"budget": 1e-9},
}
"""Defaults; everything measured at every call; nothing but what the budget never thins."""


def arm(step: Callable[[], None], during: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Arm:
    """A step that is timed inside of a context, which is entered and left outside of the timing."""

    def take() -> Took:
        with during():
            return timed(step)

    return take


def late(make: Callable[[], Arm]) -> Arm:
    """An arm that is made when it takes its first step: the order of those decides where in memory it is."""
    made: list[Arm] = []

    def take() -> Took:
        made.extend([] if made else [make()])
        return made[0]()

    return take


def in_a_loop(make: Callable[[], Loop]) -> Iterator[tuple[str, Callable[[], Pair]]]:
    """The pairs of a plain loop; peers where they are installed."""

    def apart(attach: Callable[[Loop], Loop] = lambda loop: loop) -> Pair:
        return late(lambda: arm(make())), late(lambda: arm(attach(make())))

    def together(during: Callable[[], AbstractContextManager[Any]]) -> Pair:
        loop = make()
        return arm(loop), arm(loop, during)

    yield "unguarded again", apart
    for name, settings in GUARDS.items():
        if _has("pydantic_settings"):
            yield name, partial(_watched, together, settings)
    yield "autograd anomaly mode", lambda: together(lambda: torch.autograd.set_detect_anomaly(True))
    yield "HF DebugUnderflowOverflow", partial(apart, with_underflow_overflow)
    if _has("torch_audit"):
        yield "torch-audit", partial(apart, audited)
    if _has("traincheck"):
        from benchmarks.overhead.traincheck_arm import Traced

        yield "TrainCheck, selective tracing", lambda: (arm(make()), Traced(make.__name__))


def in_the_trainer() -> Iterator[tuple[str, Callable[[], Pair]]]:
    """The pairs of the Trainer; its own option switches DebugUnderflowOverflow on."""

    def apart(**changes: Any) -> Pair:
        return late(lambda: arm(_started())), late(lambda: arm(_started(**changes)))

    def anomaly() -> Pair:
        loop = _started()
        return arm(loop), arm(loop, lambda: torch.autograd.set_detect_anomaly(True))

    yield "unguarded again", apart
    for name, settings in GUARDS.items():
        yield name, partial(_guarded, settings)
    yield "autograd anomaly mode", anomaly
    yield "HF DebugUnderflowOverflow", partial(apart, debug="underflow_overflow")


def _started(callbacks: Any = (), **changes: Any) -> TrainerLoop:
    loop = TrainerLoop(callbacks, **changes)
    loop.start()
    return loop


def _guarded(settings: dict[str, Any]) -> Pair:
    """The callback, with a guard or with none, as before a training and after it."""
    from ctcguard import CTCGuard

    callback = CTCGuard(sinks=(), **settings)
    loop = _started([callback])
    guard, callback._watch = callback.watch, None
    seeing = seam_of(guard)

    @contextmanager
    def at_work() -> Iterator[None]:
        callback._watch = guard
        try:
            with seeing():
                yield
        finally:
            callback._watch = None

    return arm(loop), arm(loop, at_work)


def _watched(together: Callable[[Callable[[], AbstractContextManager[Any]]], Pair], settings: dict[str, Any]) -> Pair:
    from ctcguard import watch

    return together(seam_of(watch(sinks=(), **settings)))


class own_time:  # noqa: N801 - a context, entered again and again
    """Lets a guard's clock stand still outside of the context: while it is the turn of others."""

    def __init__(self, clock: Any) -> None:
        self._outside_s, self._left_s = 0.0, time.perf_counter()
        clock.now = lambda: time.perf_counter() - self._outside_s

    def __enter__(self) -> None:
        self._outside_s += time.perf_counter() - self._left_s

    def __exit__(self, *error: object) -> None:
        self._left_s = time.perf_counter()


def seam_of(guard: Any) -> Callable[[], AbstractContextManager[Any]]:
    """A guard that sees what happens inside of the context only, and takes no other time for that of its run."""
    from ctcguard_integrations import torch_seam

    torch_seam.remove(guard)
    clock = own_time(guard.guard.clock)

    @contextmanager
    def seeing() -> Iterator[None]:
        torch_seam.add(guard)
        try:
            with clock:
                yield
        finally:
            torch_seam.remove(guard)

    return seeing


def with_underflow_overflow(loop: Loop) -> Loop:
    """As its documentation attaches it."""
    from transformers.debug_utils import DebugUnderflowOverflow

    DebugUnderflowOverflow(loop.model)
    return loop


def audited(loop: Loop) -> Loop:
    """As torch-audit's page attaches it first, but at every step, as every other arm looks at every step."""
    from torch_audit import autopatch

    autopatch(loop.model, optimizer=loop.optimizer, every_n_steps=1, reporters=[])
    return loop


def _has(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None
