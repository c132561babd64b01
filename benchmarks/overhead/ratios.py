"""Times of arms that take turns, as ratios to one of them: a machine that slows down slows all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

BASE = "unguarded"
Arm = Callable[[], "Took"]


class Took(NamedTuple):
    """Seconds of one step: by the clock, and of the processor (all threads of this process)."""

    clock: float
    processor: float


def timed(work: Callable[[], Any]) -> Took:
    """Run once, and measure."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - clock, time.process_time() - processor)


def in_turns(arms: Mapping[str, Arm], rounds: int, warm_up: int = 5) -> dict[str, list[Took]]:
    """One step of each arm in every round, in an order of its own.

    Parameters
    ----------
    arms : mapping of str to callable
        Each takes a step and says how long it took, so that what prepares a step is not counted.
    rounds : int
        How many are counted.
    warm_up : int
        Steps of each arm before.
    """
    order = np.random.default_rng(0)
    names = list(arms)
    took: dict[str, list[Took]] = {name: [] for name in names}
    for name in names:
        for _ in range(warm_up):
            arms[name]()
    for _ in range(rounds):
        for name in order.permutation(names):
            took[name].append(arms[name]())
    return took


def summary(took: Mapping[str, list[Took]], base: str = BASE) -> dict[str, dict[str, Any]]:
    """For each arm the ratios to the base arm's step of the same round.

    Returns
    -------
    dict
        By arm: ``ms``, the median by the clock; ``ratio``, the median of the ratios by the clock, ``interval``, its 95%
        bootstrap interval, ``quartiles`` of the ratios; ``processor``, the median of the ratios of processor time.
    """
    times = {name: np.asarray(values) for name, values in took.items()}
    random = np.random.default_rng(0)
    count = len(times[base])
    picks = random.integers(0, count, (2000, count))
    found = {}
    for name, values in times.items():
        clock, processor = (values / times[base]).T
        medians = np.median(clock[picks], axis=1)
        found[name] = {
            "ms": round(float(np.median(values[:, 0])) * 1e3, 3),
            "ratio": round(float(np.median(clock)), 4),
            "interval": np.quantile(medians, (0.025, 0.975)).round(4).tolist(),
            "quartiles": np.quantile(clock, (0.25, 0.75)).round(4).tolist(),
            "processor": round(float(np.median(processor)), 4),
        }
    return found


def said(name: str, found: Mapping[str, Any]) -> str:
    """One line for the screen."""
    (least, most), (low, high) = found["interval"], found["quartiles"]
    return (
        f"{name:<28} x{found['ratio']:.4f}   95% {least:.4f} to {most:.4f}   quartiles {low:.3f} to {high:.3f}   "
        f"processor x{found['processor']:.4f}"
    )
