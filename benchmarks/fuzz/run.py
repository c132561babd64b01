"""Many random CTC calls, right ones and wrong ones of every kind, under a guard.

    python benchmarks/fuzz/run.py --calls 100000     writes fuzz.json and fuzz.md; about ten minutes on two cores
    python benchmarks/fuzz/run.py --seed 1234        one call again, and what came of it

Workers are processes: torch's kernel may end one, should a label that is no class ever reach it; that would be counted.
They run at the lowest priority unless told otherwise. Warnings of Python and of numpy are errors in them. What is made,
and what counts as a failure, is in tests/fuzz/calls.py; the same runs in short with the tests.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

import argparse
import json
import multiprocessing
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "integrations")]

from tests.fuzz.calls import Outcome, Random, guards, outcome_of  # noqa: E402 - after the path

JSON, PAGE = HERE / "fuzz.json", HERE / "fuzz.md"
PORTION = 2000
"""Calls that a worker makes at once."""
KEPT = 20
"""Failures written down in full."""


def strict(niceness: int = 0) -> None:
    """In a worker: a low priority, and no warning passes."""
    os.nice(niceness)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")
    np.seterr(all="raise")


def portion(first: int, calls: int) -> tuple[list[tuple[int, Outcome]], Counter[str], float]:
    """Calls with the seeds from ``first`` on: those that failed, how many there were of each kind, seconds."""
    started, those = time.perf_counter(), guards()
    failed, kinds = [], Counter[str]()
    for seed in range(first, first + calls):
        outcome = outcome_of(seed, Random(seed), those)
        kinds[kind_of(outcome)] += 1
        if outcome.exception or outcome.missed or outcome.fault:
            failed.append((seed, outcome))
    for judging in those.values():
        judging.close()
    return failed, kinds, time.perf_counter() - started


def kind_of(outcome: Outcome) -> str:
    """The road, and what was wrong; two faults in one call count for the first."""
    return outcome.kind.partition(";")[0]


def many(calls: int, workers: int, niceness: int) -> dict[str, Any]:
    """All of them, in portions."""
    failed: list[tuple[int, Outcome]] = []
    kinds, crashed, seconds, started = Counter[str](), 0, 0.0, time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=strict, initargs=(niceness,)) as pool:
        portions: dict[Future[Any], int] = {
            pool.submit(portion, first, min(PORTION, calls - first)): first for first in range(0, calls, PORTION)
        }
        for number, done in enumerate(as_completed(portions), 1):
            try:
                some, found, took = done.result()
            except BrokenProcessPool:
                crashed += 1
                continue
            failed, kinds, seconds = failed + some, kinds + found, seconds + took
            print(f"{number} of {len(portions)} portions, {len(failed)} failures", flush=True)
    return {
        "calls": kinds.total(),
        "asked": calls,
        "exceptions_into_training": sum(bool(each.exception) for _, each in failed),
        "labels_missed": sum(bool(each.missed) for _, each in failed),
        "own_faults_contained": sum(bool(each.fault) for _, each in failed),
        "workers_ended_by_the_kernel": crashed,
        "kinds": dict(sorted(kinds.items())),
        "failures": [{"seed": seed, **vars(each)} for seed, each in sorted(failed, key=lambda pair: pair[0])[:KEPT]],
        "seconds": round(time.perf_counter() - started),
        "seconds_of_workers": round(seconds),
        "workers": workers,
    }


HEAD = """\
# Random calls under a guard

Written by `python benchmarks/fuzz/run.py --calls {asked}`:
{calls:,} calls in {seconds} s with {workers} workers.

| | |
|---|--:|
| exceptions into the training, and results that differ from those without a guard | {exceptions_into_training} |
| labels out of range that were not said | {labels_missed} |
| faults of the guard itself, contained (CTC902) | {own_faults_contained} |
| workers ended by torch's kernel | {workers_ended_by_the_kernel} |

`trained`: through `torch.nn.functional.ctc_loss`, forwards and backwards, with and without a guard; the bits of loss
and gradient, or type and text of the error, are the same. `judged`: one call through `guard.observe` and through
`ctcguard.diagnose`, which need no kernel. `stopped`: through `ctc_loss` with labels that are no classes and
`on_error="raise"`, which must end before the kernel. Shapes (also empty ones), dtypes, strides, lengths, blank and
scores (also NaN, infinite, huge) are random in every call; the kind is what its labels or shapes are. Plain loops tell
which labels are out of range. In turns, a guard judges one call, or a hundred.

| kind | calls |
|---|--:|
"""


def page(result: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        HEAD.format(**result).rstrip("\n"),
        *[f"| {kind} | {count:,} |" for kind, count in result["kinds"].items()],
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=100_000)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--nice", type=int, default=19, help="priority of the workers; 19 is the lowest")
    options.add_argument("--seed", type=int, help="show one call")
    given = options.parse_args()
    if given.seed is not None:
        strict()
        print(outcome_of(given.seed, Random(given.seed), guards()))
        return
    result = many(given.calls, given.workers, given.nice)
    JSON.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(result), encoding="utf-8")
    print(json.dumps({name: value for name, value in result.items() if name != "kinds"}, indent=1))


if __name__ == "__main__":
    main()
