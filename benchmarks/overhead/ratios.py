"""Times taken in turns, and what can be said of their ratios on a machine that others use too."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

RESAMPLES = 2000
Result = TypeVar("Result")


class Took(NamedTuple):
    """Seconds of one step: by the clock, and of the processor (all threads of this process)."""

    clock: float
    processor: float


Arm = Callable[[], Took]
Pair = tuple[Arm, Arm]
"""Steps without a tool, and with it: of one training where the tool can be taken off, else of two equal ones."""


def timed(work: Callable[[], Any]) -> Took:
    """Run once, and measure."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - clock, time.process_time() - processor)


def in_turns(
    arms: Mapping[str, Callable[[], Result]], rounds: int, warm_up: int = 0, seed: int = 0
) -> dict[str, list[Result]]:
    """Run each arm once a round, in an order of its own; each says how long it took.

    Parameters
    ----------
    arms : mapping of str to callable
        What prepares a step is their own affair, and not counted.
    rounds : int
        How many are counted.
    warm_up : int
        Runs of each arm before.
    seed : int
        Of the orders: that in which they begin, too.
    """
    names, order = list(arms), np.random.default_rng(seed)
    times: dict[str, list[Result]] = {name: [] for name in names}
    for name in order.permutation(names):
        for _ in range(warm_up):
            arms[name]()
    gc.collect()
    gc.freeze()  # what stays is not looked through again and again
    for _ in range(rounds):
        for name in order.permutation(names):
            times[name].append(arms[name]())
    gc.unfreeze()
    return times


def median_with_interval(values: Sequence[float]) -> dict[str, float]:
    """The median with a 95% bootstrap interval, and the quartiles."""
    array, random = np.asarray(values), np.random.default_rng(0)
    picks = random.integers(0, len(array), (RESAMPLES, len(array)))
    least, most = np.quantile(np.median(array[picks], axis=1), (0.025, 0.975))
    low, median, high = np.quantile(array, (0.25, 0.5, 0.75))
    named = {"median": median, "least": least, "most": most, "quartile_1": low, "quartile_3": high}
    return {name: round(float(value), 5) for name, value in named.items()}


def to_base(base: Sequence[Took], took: Sequence[Took]) -> dict[str, Any]:
    """Times of an arm, each divided by that of the base arm of the same round.

    Returns
    -------
    dict
        ``ms``, the median of the base by the clock; ``clock`` and ``processor``, the ratios as
        `median_with_interval`; ``mean``, the ratio of the mean times by the clock, without the longest and the
        shortest fiftieth.
    """
    bases, values = np.asarray(base), np.asarray(took)
    clock, processor = (values / bases).T
    return {
        "ms": round(float(np.median(bases[:, 0])) * 1e3, 3),
        "clock": median_with_interval(clock),
        "mean": round(trimmed(values[:, 0]) / trimmed(bases[:, 0]), 4),
        "processor": median_with_interval(processor),
    }


def trimmed(times: Any) -> float:
    """The mean without the longest and the shortest fiftieth, which are the machine's."""
    ordered, cut = np.sort(times), len(times) // 50
    return float(ordered[cut : len(ordered) - cut].mean())


def said(ratio: Mapping[str, float]) -> str:
    """For the screen."""
    return f"x{ratio['median']:.4f} (95% {ratio['least']:.4f} to {ratio['most']:.4f})"


def machine() -> dict[str, Any]:
    """Where it was measured."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "load": [round(load, 2) for load in os.getloadavg()],
    }
