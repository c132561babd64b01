"""The same calls, chosen by libFuzzer for the lines of ctcguard that they reach.

    pip install atheris                                     it is no dependency of the tests
    python benchmarks/fuzz/with_atheris.py -runs=20000 -len_control=0 -max_len=400

It ends at the first failure. Only `judged` calls: what goes into torch's kernel is random in run.py.
"""

from __future__ import annotations

import os

os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import atheris

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "integrations")]

import torch  # noqa: E402, F401 - before instrumentation begins: only ctcguard's lines count

with atheris.instrument_imports(include=["ctcguard", "ctcguard_integrations"]):
    from tests.fuzz.calls import Judging, call, judged


class Provided:
    """Choices of libFuzzer."""

    def __init__(self, data: bytes) -> None:
        self._data = atheris.FuzzedDataProvider(data)

    def whole(self, low: int, high: int) -> int:
        return int(self._data.ConsumeIntInRange(low, high))

    def one(self, options: Sequence[Any]) -> Any:
        return options[self.whole(0, len(options) - 1)]


def one_input(data: bytes) -> None:
    judging = Judging()
    try:
        outcome = judged(call(Provided(data)), judging)
    finally:
        judging.close()
    if outcome.exception or outcome.missed or outcome.fault:
        raise AssertionError(outcome)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
