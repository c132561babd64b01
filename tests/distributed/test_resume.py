"""A run that goes on: the guard remembers what it has seen and what it has said."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ctcguard import CTCVerdictError, watch
from ctcguard.guarded import Guarded


class Loop:
    """A training loop with a checkpoint; every batch of it has an utterance that does not fit if ``short``."""

    def __init__(self, short: bool = False) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(8, 12)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.short = short

    def run(self, steps: int) -> None:
        for _ in range(steps):
            log_probs = self.model(torch.randn(30, 4, 8)).log_softmax(-1)
            frames = torch.tensor([30, 25, 2 if self.short else 20, 28])
            labels = torch.randint(1, 12, (4, 5))
            loss = torch.nn.functional.ctc_loss(log_probs, labels, frames, torch.full((4,), 5), zero_infinity=True)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    Path("checkpoint.json").write_text(json.dumps(state))
    return json.loads(Path("checkpoint.json").read_text())  # type: ignore[no-any-return]


def table(guard: Guarded) -> list[Any]:
    return [repr(row) for row in guard.state_dict()["history"]["rows"]]  # NaN is equal to itself in letters


def test_a_resumed_run_knows_the_calls_of_the_one_before() -> None:
    with watch(budget=None) as whole:
        Loop().run(30)
    loop = Loop()
    with watch(budget=None, run_dir="first") as first:
        loop.run(18)
        state = through_a_file(first.state_dict())
    with watch(budget=None, run_dir="second") as second:
        second.load_state_dict(state)
        assert second.guard.step == 18
        loop.run(12)
        assert second.findings == []
        steps = [row[0] for row in second.state_dict()["history"]["rows"]]
    assert steps == list(range(30))
    assert table(second) == table(whole)


def test_torch_loads_it_without_unpickling_objects() -> None:
    with watch(sinks=()) as guard:
        Loop().run(3)
        torch.save({"ctcguard": guard.state_dict()}, "checkpoint.pt")
    loaded = torch.load("checkpoint.pt", weights_only=True)["ctcguard"]
    with watch(sinks=()) as again:
        again.load_state_dict(loaded)
        assert table(again) == table(guard)


@pytest.fixture
def reported() -> dict[str, Any]:
    """The state of a run that has alerted of utterances that do not fit."""
    with watch(on_warning="alert", run_dir="first") as first:
        Loop(short=True).run(2)
    assert [verdict.code for verdict in first.verdicts] == ["CTC301"]
    return through_a_file(first.state_dict())


def test_what_was_said_is_not_said_again_but_counted(reported: dict[str, Any], capsys: Any) -> None:
    capsys.readouterr()
    with watch(on_warning="alert", run_dir="second") as second:
        second.load_state_dict(reported)
        Loop(short=True).run(2)
    assert second.verdicts == []
    assert capsys.readouterr().err == ""
    assert second.guard.end_record()["codes"]["CTC301"] == 4
    lines = [json.loads(line) for line in Path("second/findings.jsonl").read_text().splitlines()]
    assert [line["code"] for line in lines if line["type"] == "finding"].count("CTC301") == 2


def test_what_ends_the_resumed_run_is_shown_though_it_was_said_before(reported: dict[str, Any], capsys: Any) -> None:
    capsys.readouterr()
    with watch(on_warning="raise", run_dir="second") as second:
        second.load_state_dict(reported)
        with pytest.raises(CTCVerdictError):
            Loop(short=True).run(2)
    assert "CTC301 too-few-frames" in capsys.readouterr().err


def test_a_state_costs_little() -> None:
    with watch(sinks=()) as guard:
        Loop().run(200)
        started = time.perf_counter()
        size = len(json.dumps(guard.state_dict()))
        assert time.perf_counter() - started < 0.5
    assert size < 200 * 17 * 25 + 2000
