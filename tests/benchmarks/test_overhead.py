"""The benchmarks of cost: what they make of figures, and of tools that cannot run."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest

from benchmarks.overhead import counts, growth, steps
from benchmarks.overhead.ratios import Pair, Took, to_base

HERE = Path(growth.__file__).parent


def test_what_keeps_a_tool_from_running_is_written_down() -> None:
    took = Took(1.0, 2.0)

    def cannot() -> Pair:
        raise FileNotFoundError("no such tool")

    assert steps.tried(cannot) == "FileNotFoundError: no such tool"
    assert steps.tried(lambda: (lambda: took, lambda: int("no step"))).startswith("ValueError: invalid literal")
    pair = steps.tried(lambda: (lambda: took, lambda: took))
    assert not isinstance(pair, str)
    assert [arm() for arm in pair] == [took, took]


def test_to_import_the_benchmark_sets_nothing_for_others() -> None:
    before = dict(os.environ)
    importlib.reload(steps)
    assert dict(os.environ) == before


def test_a_ratio_is_that_of_the_same_round() -> None:
    without, under = [Took(1.0, 1.0), Took(4.0, 1.0), Took(2.0, 1.0)], [Took(1.1, 1.0), Took(4.4, 2.0), Took(2.2, 1.0)]
    found = to_base(without, under)
    assert found["ms"] == 2000.0
    assert found["clock"]["least"] == found["clock"]["median"] == found["clock"]["most"] == pytest.approx(1.1)
    assert found["processor"]["median"] == 1.0


def test_the_exponent_is_the_slope_of_the_larger_sizes() -> None:
    sizes = (1, 2, 4, 8, 16, 32)
    assert growth.exponent(sizes, [5.0, 5.0, 5.0, 8.0, 16.0, 32.0]) == pytest.approx(1.0)
    assert growth.exponent(sizes, [3.0] * 6) == 0.0


def test_the_pages_are_made_of_the_committed_figures() -> None:
    for made in (growth, counts, steps):
        content = json.loads(made.JSON.read_text(encoding="utf-8"))
        assert made.PAGE.read_text(encoding="utf-8") == made.page(content)
    assert growth.PICTURE.read_text(encoding="utf-8").startswith("<svg")


def test_python_counts_are_the_same_again_and_grow_with_the_work() -> None:
    def work(times: int) -> None:
        for _ in range(times):
            json.dumps({})

    one, again, ten = (counts.python_counts(lambda times=times: work(times)) for times in (1, 1, 10))
    assert one == again
    assert ten["bytecodes"] > one["bytecodes"]
    assert ten["python_calls"] > one["python_calls"] > 0
