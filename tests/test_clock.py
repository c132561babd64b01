"""The guard's own clock: what it counts, and when a budget thins what is measured."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

import ctcguard.depth
import ctcguard.guard
from ctcguard import CTCVerdictError, watch
from ctcguard.clock import ALWAYS_CALLS, MEMORY_CALLS, SELDOM_CALLS, Clock, Contained

STEP_S = 0.06
Run = Callable[[float, float, int], Clock]


class Time:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls whose distribution costs some seconds and whose contracts cost others, in steps of one second."""
    now = Time()
    monkeypatch.setattr("ctcguard.clock.time.perf_counter", now)

    def runs(sample_s: float, contract_s: float, calls: int, budget: float | None = 0.01) -> Clock:
        clock = Clock(budget)
        for _ in range(calls):
            started = clock.start()
            clock.called()
            now.now_s += contract_s if clock.over_budget else contract_s + sample_s
            clock.stop(started)
            now.now_s += 1.0
        return clock

    return runs


def test_the_first_calls_are_measured_whatever_they_cost(run: Run) -> None:
    assert not run(9.0, 0.0, ALWAYS_CALLS).over_budget
    assert run(9.0, 0.0, ALWAYS_CALLS + 1).over_budget


def test_what_is_cheap_is_always_measured(run: Run) -> None:
    clock = run(0.004, 0.001, 3 * MEMORY_CALLS)
    assert clock.recent_fraction() == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize("sample_s", [0.02, 0.2, 2.0])
def test_dear_measurements_get_rare_and_the_share_stays_below_the_budget(run: Run, sample_s: float) -> None:
    for calls in (40, 100, 1000, 3000):
        clock = run(sample_s, 0.001, calls)
        assert clock.recent_fraction() <= 0.0101
    assert clock.recent_fraction() > 0.005  # and the budget is used


@pytest.mark.parametrize(("sample_s", "rare"), [(0.1, 1 / SELDOM_CALLS), (0.9, 0.0)])
def test_where_contracts_alone_take_the_budget_the_rest_is_seldom(run: Run, sample_s: float, rare: float) -> None:
    """One call in 17, which rules about whole runs need; not if it is very dear."""
    clock = run(sample_s, 0.02, 3000)
    assert clock.recent_fraction() == pytest.approx((0.02 + rare * sample_s) / (1.02 + rare * sample_s), rel=0.03)


def test_without_a_budget_no_clock_decides(run: Run) -> None:
    assert not run(9.0, 1.0, 500, None).over_budget  # type: ignore[call-arg]


def test_the_share_counts_all_of_the_run(run: Run) -> None:
    assert run(1.0, 0.0, ALWAYS_CALLS).fraction() == pytest.approx(0.5)
    assert Clock(0.01).fraction() == Clock(0.01).recent_fraction() == 0


def test_faults_are_contained_and_verdicts_pass() -> None:
    faults: list[Any] = []
    clock = Clock(None)
    with Contained(clock, lambda where, error: faults.append((where, str(error))), "here"):
        raise ZeroDivisionError("ours")
    assert faults == [("here", "ours")]
    assert clock.fraction() > 0
    for passing in (CTCVerdictError.__new__(CTCVerdictError), KeyboardInterrupt()):
        with pytest.raises(type(passing)), Contained(clock, lambda *_: faults.append("no"), "there"):
            raise passing
    assert len(faults) == 1


def test_a_guard_made_slow_on_purpose_comes_down_under_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(call: Any) -> dict[str, Any]:
        measured.append(len(checked))
        time.sleep(STEP_S)
        return {}

    def counted(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def checks(call: Any) -> Any:
            checked.append(call)
            return check(call)

        return checks

    measured: list[int] = []
    checked: list[Any] = []
    depth = ctcguard.depth.FULL
    monkeypatch.setattr(ctcguard.depth, "FULL", depth._replace(probes=(*depth.probes, slow)))
    for name in ("contract", "glimpse"):  # a call is checked by one of the two
        monkeypatch.setattr(ctcguard.guard, name, counted(getattr(ctcguard.guard, name)))
    parameter = torch.nn.Parameter(torch.randn(40, 2, 9))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    with watch(budget=0.2, sinks=("jsonl",), run_dir="run") as guard:
        for _ in range(ALWAYS_CALLS + 18):
            loss = torch.nn.functional.ctc_loss(
                parameter.log_softmax(-1), torch.randint(1, 9, (2, 5)), (40, 30), (5, 4)
            )
            loss.backward()
            optimizer.step()
            time.sleep(STEP_S)
        clock = guard.guard.clock
        assert clock.recent_fraction() <= 0.2 < clock.fraction()
    assert len(checked) == ALWAYS_CALLS + 18
    assert ALWAYS_CALLS < len(measured) < ALWAYS_CALLS + 9
    end = json.loads((guard.run_dir / "findings.jsonl").read_text().splitlines()[-1])
    assert end["overhead_fraction"] == pytest.approx(clock.fraction(), rel=0.1)
