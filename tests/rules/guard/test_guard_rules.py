"""CTC901, CTC902 and CTC903: the guard about itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ctcguard.readings import Readings
from ctcguard.rules.guard.alert_undelivered import AlertUndelivered
from ctcguard.rules.guard.guard_blind import GuardBlind
from ctcguard.rules.guard.guard_fault import OFF, GuardFault


@pytest.mark.parametrize("calls", [1, 10_000])
def test_a_guard_that_saw_a_call_is_not_blind(calls: int) -> None:
    assert GuardBlind().check(Readings({"calls_seen": calls, "steps_taken": 100, "imported_earlier": True})) is None


@pytest.mark.parametrize(
    ("values", "cause", "said", "fix"),
    [
        ({"calls_seen": 0, "steps_taken": 100}, "no-ctc-call", "100 optimizer steps were taken", "before it starts"),
        ({"calls_seen": 0, "steps_taken": 0}, "no-ctc-call", "closed before any optimizer step", "guard.observe("),
        ({"calls_seen": 0}, "no-ctc-call", "closed before any optimizer step", "where the training runs"),
        ({"calls_seen": float("nan"), "steps_taken": 1}, "no-ctc-call", "nothing was checked", "watch()"),
        ({"calls_seen": 0, "imported_earlier": True}, "imported-earlier", "nothing was checked", "after the guard"),
        ({"calls_seen": 0, "imported_earlier": False}, "no-ctc-call", "nothing was checked", "watch()"),
        ({"calls_seen": 0, "compiled_earlier": True}, "compiled-earlier", "nothing was checked", "before .lower(…)"),
        ({"calls_seen": 0, "compiled_earlier": False}, "no-ctc-call", "nothing was checked", "watch()"),
        (
            {"calls_seen": 0, "steps_taken": 1, "framework": "jax", "compiled_earlier": True},
            "compiled-earlier",
            "1 optimizer steps were taken",
            "guard the function or its jax.jit",
        ),
        (
            {"calls_seen": 0, "steps_taken": 1, "framework": "jax"},
            "no-ctc-call",
            "1 optimizer steps were taken",
            "call ctcguard.observe(logits=…, …) in it",
        ),
    ],
)
def test_blind(values: dict[str, Any], cause: str, said: str, fix: str) -> None:
    finding = GuardBlind().check(Readings(values))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC901", cause, "warning")
    assert said in finding.message
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("where", "kind", "said", "fix"),
    [
        ("CTC402", "rule", "rule CTC402 failed", "report it"),
        ("rule CTC402", "rule", "rule CTC402 failed", "report it"),
        ("probe", "probe", "probe failed", "report it"),
        ("sink wandb", "sink", "sink wandb failed", "sink wandb can be written to"),
        ("torch.ctc_loss", "capture", "capture torch.ctc_loss failed", "report it"),
    ],
)
@pytest.mark.parametrize("form", [dict, SimpleNamespace])
def test_fault(form: Any, where: str, kind: str, said: str, fix: str) -> None:
    fault = form(where=where, kind=kind, error="KeyError: 'frames'")
    finding = GuardFault().check(Readings({"fault": fault}))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC902", kind, "warning")
    assert finding.message == f"{said} (KeyError: 'frames'); training goes on, without {OFF[kind]}"
    assert fix in finding.fix
    assert finding.evidence == "KeyError: 'frames'"


def test_every_kind_of_fault_is_a_cause_of_the_page() -> None:
    assert tuple(OFF) == GuardFault.causes


@pytest.mark.parametrize(
    ("error", "cause", "fix"),
    [
        ("UsageError: Run (oxmk4xm4) is finished. The call to `alert` will be ignored.", "finished-run", "not before"),
        ("ConnectionError: backend is gone", "unreachable", "findings.jsonl"),
    ],
)
def test_undelivered(error: str, cause: str, fix: str) -> None:
    undelivered = {"sink": "wandb", "error": error, "title": "CTC402 unnormalised-log-probs at step 3"}
    finding = AlertUndelivered().check(Readings({"undelivered": undelivered}))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC903", cause, "warning")
    assert "'CTC402 unnormalised-log-probs at step 3' could not be handed to wandb" in finding.message
    assert fix in finding.fix
    assert finding.evidence == error
