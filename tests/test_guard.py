"""The guard's memory: steps, budget, what is said at the end."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

from ctcguard import watch
from ctcguard.guard import ALWAYS_CALLS, BLIND_STEPS, EXACT_LOSS_CALLS, THINNED, Guard
from ctcguard.probes import DISTRIBUTION, EXACT
from ctcguard.settings import load


def a_call(scores: Any = None) -> None:
    scores = torch.randn(40, 2, 9, requires_grad=True).log_softmax(-1) if scores is None else scores
    torch.nn.functional.ctc_loss(scores, torch.randint(1, 9, (2, 5)), (40, 30), (5, 4))


@pytest.mark.parametrize(("spent_s", "budget", "calls", "full"), [
    (0.0, 0.01, ALWAYS_CALLS + 1, True),
    (1e9, 0.01, ALWAYS_CALLS, True),
    (1e9, 0.01, ALWAYS_CALLS + 1, False),
    (1e9, 0.01, ALWAYS_CALLS + THINNED, True),
    (1e9, None, ALWAYS_CALLS + 1, True),
])  # fmt: skip
def test_over_budget_sampled_measurements_are_thinned(
    spent_s: float, budget: float | None, calls: int, full: bool
) -> None:
    guard = Guard(load(budget=budget, sinks="none"))
    with guard.contained("work"):
        pass
    guard.calls, guard._spent_s = calls, spent_s
    assert guard.probes(batch=2) == (DISTRIBUTION if full else EXACT)


def test_the_first_call_of_1024_has_one_utterance_looked_at_whole() -> None:
    guard = Guard(load(sinks="none"))
    seen = {}
    for guard.calls in (1, 2, EXACT_LOSS_CALLS, EXACT_LOSS_CALLS + 1, 2 * EXACT_LOSS_CALLS + 1):
        last = guard.probes(batch=2)[-1]
        seen[guard.calls] = last.keywords["index"] if isinstance(last, functools.partial) else None
    assert list(seen.values()) == [0, None, None, 1, 0]


def test_a_thinned_guard_still_checks_targets_and_lengths_at_every_call() -> None:
    with watch(on_error="log", budget=1e-9) as guard:
        for _ in range(ALWAYS_CALLS + THINNED - 2):
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
    with watch(run_dir="run") as guard:
        a_call()
    assert [path.name for path in guard.run_dir.iterdir()] == ["findings-rank3.jsonl"]
