"""CTC603."""

from __future__ import annotations

from typing import Any

import pytest

from ctcguard.finding import Severity
from ctcguard.readings import Readings
from ctcguard.rules.gradients.no_gradient import STATES, NoGradient

HEAD = "the head of shape (29, 96)"


def readings(state: str, **other: Any) -> Readings:
    return Readings({"head_state": state, "head_parameter": HEAD, "source": "torch.ctc_loss", **other})


@pytest.mark.parametrize("steps", [0, 3, 10_000])
def test_learning_is_healthy(steps: int) -> None:
    assert NoGradient().check(readings("learning", head_steps=steps)) is None


@pytest.mark.parametrize("state", STATES)
def test_the_state_must_last(state: str) -> None:
    assert NoGradient().check(readings(state, head_steps=2)) is None
    assert NoGradient().check(readings(state, head_steps=3)) is not None
    assert NoGradient(grace_steps=50).check(readings(state, head_steps=49)) is None
    assert NoGradient(grace_steps=50).check(readings(state, head_steps=50)) is not None
    assert NoGradient().check(readings(state, head_steps=float("nan"))) is not None
    assert NoGradient().check(readings(state)) is not None


@pytest.mark.parametrize(
    ("state", "severity", "evidence", "fix"),
    [
        ("detached", Severity.WARNING, f"between {HEAD} and torch.ctc_loss", "torch.no_grad()"),
        ("frozen", Severity.INFORMATION, "requires_grad is False", f"requires_grad_(True) on {HEAD}"),
        ("not-in-optimizer", Severity.WARNING, "no optimizer that stepped holds it", "add_param_group"),
        ("zeroed-before-step", Severity.ERROR, "0 or None when the optimizer steps", "before loss.backward()"),
    ],
)
def test_each_cause(state: str, severity: Severity, evidence: str, fix: str) -> None:
    finding = NoGradient().check(readings(state, head_steps=7))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC603", state, severity)
    assert finding.message == f"the loss must move {HEAD}, but in 7 optimizer steps it could not"
    assert evidence in finding.evidence
    assert fix in finding.fix


def test_every_state_is_a_cause_of_the_page() -> None:
    assert set(STATES) == set(NoGradient.causes)


def test_speaks_of_the_head_when_its_name_is_unknown() -> None:
    finding = NoGradient().check(Readings({"head_state": "detached"}))
    assert finding is not None
    assert "the loss must move the head" in finding.message
    assert "between the head and the loss" in finding.fix
