"""The readings of a run in readings.jsonl: bounded, cheap, whole, and never in the way."""

from __future__ import annotations

import json
import math
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from ctcguard import CTCVerdictError, watch
from ctcguard.finding import Finding, Severity
from ctcguard.sinks import timeline
from ctcguard.sinks.timeline import ROWS, Timeline
from ctcguard.verdict import Verdict

VERDICT = Verdict(
    root=Finding(
        code="CTC402",
        name="unnormalised-log-probs",
        severity=Severity.ERROR,
        cause="probabilities",
        message="m",
        fix="f",
    )
)


def filled(calls: int) -> Timeline:
    sink = Timeline(Path)
    for step in range(calls):
        sink.readings({"loss_max_nats": float(step)}, step)
    return sink


def written() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    head, *rows = map(json.loads, Path("readings.jsonl").read_text("utf-8").splitlines())
    return head, rows


@pytest.mark.parametrize("calls", [1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS, 100_000])
def test_rows_are_few_evenly_spread_and_end_with_the_last_call(calls: int) -> None:
    filled(calls).end({})
    head, rows = written()
    steps = [row["step"] for row in rows]
    assert head == {"type": "readings", "schema": 1, "calls": calls, "every": head["every"]}
    assert len(rows) <= ROWS
    assert len(rows) >= min(calls, ROWS // 2)
    assert steps[0] == 0
    assert steps[-1] == calls - 1
    assert {b - a for a, b in pairwise(steps[:-1])} <= {head["every"]}
    assert all(row["loss_max_nats"] == row["step"] for row in rows)


def test_the_call_before_a_verdict_is_kept_though_its_neighbours_are_not() -> None:
    sink = filled(5 * ROWS + 2)
    sink.verdict(VERDICT)
    for step in range(5 * ROWS + 2, 6 * ROWS):
        sink.readings({}, step)
    sink.end({})
    head, rows = written()
    assert head["every"] > 2
    steps = [row["step"] for row in rows]
    assert 5 * ROWS + 1 in steps
    assert steps == sorted(set(steps))


def test_a_verdict_writes_the_file_before_the_end() -> None:
    sink = filled(3)
    sink.verdict(VERDICT)
    deadline = time.monotonic() + 5
    while not Path("readings.jsonl").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [row["step"] for row in written()[1]] == [0, 1, 2]


def test_numbers_that_are_not_finite_are_written_as_in_findings() -> None:
    sink = Timeline(Path)
    sink.readings({"loss_max_nats": math.inf, "loss_min_nats": math.nan}, 0)
    sink.end({})
    assert written()[1] == [{"step": 0, "loss_max_nats": "Infinity", "loss_min_nats": "NaN"}]


def test_a_run_without_calls_leaves_no_file() -> None:
    sink = Timeline(Path)
    sink.verdict(VERDICT)
    sink.end({})
    assert list(Path().iterdir()) == []


def test_a_call_costs_a_microsecond_or_a_few() -> None:
    sink, scalars = filled(100_000), {"loss_max_nats": 1.0}
    best = math.inf
    for _ in range(5):
        started = time.perf_counter()
        for step in range(2000):
            sink.readings(scalars, step)
        best = min(best, (time.perf_counter() - started) / 2000)
    assert best < 5e-6


def test_a_file_that_cannot_be_written_is_one_finding_and_training_goes_on() -> None:
    Path("run/readings.jsonl").mkdir(parents=True)
    Path("run/readings.jsonl/here").touch()
    with watch(run_dir="run", on_error="log") as guard:
        a_call()
    assert [finding.code for finding in guard.findings] == ["CTC902"]
    assert guard.findings[0].message.startswith("sink readings.jsonl failed (")


def test_a_writer_that_hangs_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "DEADLINE_S", 0.05)
    monkeypatch.setattr(timeline, "_write", lambda path, lines: time.sleep(0.5))
    sink = filled(1)
    sink.verdict(VERDICT)
    with pytest.raises(TimeoutError):
        sink.end({})


def a_call(softmax: bool = False) -> None:
    scores = torch.randn(40, 2, 9, requires_grad=True)
    scores = scores.softmax(-1) if softmax else scores.log_softmax(-1)
    torch.nn.functional.ctc_loss(scores, torch.tensor([[1, 2, 3, 4, 5]] * 2), (40, 30), (5, 4))


def test_a_run_leaves_its_readings_beside_its_findings() -> None:
    with pytest.raises(CTCVerdictError), watch(run_dir="run"):  # noqa: PT012 - the second call raises
        a_call()
        a_call(softmax=True)
    rows = [json.loads(line) for line in Path("run/readings.jsonl").read_text("utf-8").splitlines()][1:]
    assert len(rows) == 2
    assert rows[0]["log_prob_max"] <= 0 < rows[1]["log_prob_max"]
    assert 0 <= rows[0]["blank_fraction"] <= 1
    assert {"loss_min_nats", "loss_median_nats", "loss_max_nats", "overhead_fraction"} <= rows[0].keys()
    assert not list(Path("run").glob(".*"))


@pytest.mark.parametrize(("sinks", "kept"), [("none", False), (("console",), False), (("jsonl",), True)])
def test_who_wants_no_files_gets_none(sinks: Any, kept: bool) -> None:
    with watch(run_dir="run", sinks=sinks):
        a_call()
    assert Path("run/readings.jsonl").exists() == kept
