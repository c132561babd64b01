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
    gc.disable()
    for _ in range(rounds):
        gc.collect()
        for name in order.permutation(names):
            times[name].append(arms[name]())
    gc.enable()
    return times


def median_with_interval(values: Sequence[float]) -> dict[str, float]:
    """The median with a 95% bootstrap interval, and the quartiles."""
    array, random = np.asarray(values), np.random.default_rng(0)
    picks = random.integers(0, len(array), (RESAMPLES, len(array)))
    least, most = np.quantile(np.median(array[picks], axis=1), (0.025, 0.975))
    low, median, high = np.quantile(array, (0.25, 0.5, 0.75))
    named = {"median": median, "least": least, "most": most, "quartile_1": low, "quartile_3": high}
    return {name: round(float(value), 5) for name, value in named.items()}


def to_base(took: Mapping[str, list[Took]], base: str) -> dict[str, dict[str, Any]]:
    """Each arm divided by the base arm of the same round.

    Returns
    -------
    dict
        By arm: ``ms``, the median by the clock; ``clock`` and ``processor``, the ratios as `median_with_interval`;
        ``mean``, the ratio of the mean times by the clock, without the longest and the shortest fiftieth.
    """
    times = {name: np.asarray(values) for name, values in took.items()}
    found = {}
    for name, values in times.items():
        clock, processor = (values / times[base]).T
        found[name] = {
            "ms": round(float(np.median(values[:, 0])) * 1e3, 3),
            "clock": median_with_interval(clock),
            "mean": round(trimmed(values[:, 0]) / trimmed(times[base][:, 0]), 4),
            "processor": median_with_interval(processor),
        }
    return found


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
