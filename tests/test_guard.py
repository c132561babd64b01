"""The guard's memory: steps, budget, what is said at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ctcguard import watch
from ctcguard.clock import ALWAYS_CALLS
from ctcguard.guard import BLIND_STEPS


def a_call(scores: Any = None) -> None:
    scores = torch.randn(40, 2, 9, requires_grad=True).log_softmax(-1) if scores is None else scores
    torch.nn.functional.ctc_loss(scores, torch.randint(1, 9, (2, 5)), (40, 30), (5, 4))


def test_a_thinned_guard_still_checks_targets_and_lengths_at_every_call() -> None:
    with watch(on_error="log", budget=1e-9) as guard:
        for _ in range(ALWAYS_CALLS + 2):
            a_call()
        assert guard.findings == []
        raw = torch.randn(40, 2, 9, requires_grad=True) - 20
        a_call(raw)
        assert guard.findings == []  # not a call at which it looks
        torch.nn.functional.ctc_loss(raw.log_softmax(-1), torch.full((2, 5), 3), (8, 30), (5, 4))
        assert [verdict.code for verdict in guard.verdicts] == ["CTC301"]


def test_without_a_budget_every_call_is_measured() -> None:
    with watch(on_error="log", budget=None) as guard:
        for _ in range(ALWAYS_CALLS + 2):
            a_call()
        a_call(torch.randn(40, 2, 9, requires_grad=True) - 20)
        assert "CTC402" in {finding.code for finding in guard.findings}


def test_blind_is_said_early_in_a_long_run_and_only_once() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    with watch() as guard:
        for step in range(BLIND_STEPS):
            assert len(guard.findings) == 0, step
            parameter.grad = torch.ones(1)
            optimizer.step()
        assert [finding.code for finding in guard.findings] == ["CTC901"]
    assert len(guard.findings) == 1


def test_a_run_that_failed_before_its_first_call_is_not_called_blind() -> None:
    with pytest.raises(KeyError), watch() as guard:
        raise KeyError("the user's own")
    assert guard.findings == []


def test_rank_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    with watch(run_dir="run"):
        a_call()
    files = sorted(path.as_posix() for path in Path("run").rglob("*.jsonl"))
    assert files == ["run/rank-3/findings.jsonl", "run/rank-3/readings.jsonl"]
