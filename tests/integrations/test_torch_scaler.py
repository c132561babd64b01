"""`torch.amp.GradScaler` under a guard: its scale is followed, and nothing of it changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ctcguard import CTCVerdictError, watch
from ctcguard.guard import Guard
from ctcguard.settings import load
from ctcguard_integrations import torch_scaler
from ctcguard_integrations.torch_pending import Pending
from ctcguard_integrations.torch_scaler import Scales

PRISTINE = torch.amp.GradScaler.update


class Run:
    """A small recogniser with a scaler; a step may be told to overflow."""

    def __init__(self, init_scale: float = 2.0**16, **options: Any) -> None:
        torch.manual_seed(0)
        self.head = torch.nn.Linear(8, 6)
        self.optimizer = torch.optim.SGD(self.head.parameters(), lr=1e-2)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, **options)
        self.generator = torch.Generator().manual_seed(0)

    def step(self, overflows: bool = False, nan: bool = False) -> None:
        features = torch.randn(20, 2, 8, generator=self.generator)
        log_probs = self.head(features).log_softmax(-1) + (torch.nan if nan else 0.0)
        loss = torch.nn.functional.ctc_loss(log_probs, torch.tensor([[1, 2], [3, 4]]), [20, 15], [2, 2])
        if overflows:  # sqrt of 0 has no gradient
            loss = loss + (0 * self.head.weight).square().sum().sqrt()
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def state(self) -> list[torch.Tensor]:
        scale = torch.tensor(self.scaler.get_scale())
        return [scale, *(parameter.detach().clone() for parameter in self.head.parameters())]


def quiet(**settings: Any) -> Any:
    return watch(**{"sinks": (), "on_error": "log", "on_warning": "log", **settings})


def test_a_healthy_calibration_is_silent_and_bit_equal() -> None:
    """Five overflows at the start, one now and then, and growth."""

    def train() -> list[torch.Tensor]:
        run = Run(growth_interval=7)
        for number in range(40):
            run.step(overflows=number < 5 or number in (17, 30))
        return run.state()

    alone = train()
    with quiet() as guard:
        guarded = train()
    assert guard.findings == []
    assert all(torch.equal(a, b) for a, b in zip(alone, guarded, strict=True))


def test_a_scale_that_started_high_may_fall_for_long() -> None:
    run = Run(init_scale=2.0**32)
    with quiet() as guard:
        for number in range(30):
            run.step(overflows=number < 25)
    assert run.scaler.get_scale() == 128.0
    assert guard.findings == []


def test_a_collapse_ends_the_run() -> None:
    run, steps = Run(), 0

    def train() -> None:
        nonlocal steps
        for steps in range(40):  # noqa: B007 - how far it came
            run.step(overflows=True)

    with watch(sinks=()) as guard, pytest.raises(CTCVerdictError) as caught:
        train()
    verdict = caught.value.verdict
    assert (verdict.code, verdict.cause, verdict.root.source) == ("CTC604", "gradient-overflow", "GradScaler.update")
    assert (steps, run.scaler.get_scale()) == (20, 2.0**-5)  # the 21st halving
    assert guard.guard.steps_taken == 0
    assert torch.amp.GradScaler.update is PRISTINE


def test_it_is_one_verdict_in_a_run_that_goes_on() -> None:
    run = Run(init_scale=1.0)
    with quiet() as guard:
        for _ in range(30):
            run.step(overflows=True)
    assert [verdict.code for verdict in guard.verdicts] == ["CTC604"]


def test_a_loss_that_is_nan_explains_it() -> None:
    run = Run(init_scale=1.0)
    with quiet() as guard:
        for _ in range(30):
            run.step(nan=True)
    assert [verdict.code for verdict in guard.verdicts] == ["CTC403"]
    assert "CTC604" in {finding.code for finding in guard.findings}
    assert {finding.cause for finding in guard.findings if finding.code == "CTC604"} == {"loss"}


def test_a_step_in_between_is_a_new_beginning() -> None:
    run = Run(init_scale=1.0)
    with quiet() as guard:
        for number in range(60):
            run.step(overflows=number % 10 != 9)
    assert run.scaler.get_scale() < 1e-9
    assert guard.findings == []


def test_a_scale_set_by_hand_is_a_new_beginning() -> None:
    run = Run(init_scale=1.0)
    with quiet() as guard:
        for number in range(30):
            run.step(overflows=True)
            if number % 9 == 8:
                run.scaler.update(1e-3)
    assert guard.findings == []


def test_each_scaler_on_its_own() -> None:
    bad, good = Run(init_scale=1.0), Run()
    with quiet() as guard:
        for _ in range(15):
            bad.step(overflows=True)
            good.step()
    assert [verdict.code for verdict in guard.verdicts] == ["CTC604"]


def test_disabled_scalers_and_subclasses() -> None:
    class Own(torch.amp.GradScaler):
        def update(self, new_scale: Any = None) -> None:
            super().update(new_scale)

    run = Run(init_scale=1.0)
    run.scaler = Own("cpu", init_scale=1.0)
    off = Run(enabled=False)
    with quiet() as guard:
        off.step()
        for _ in range(15):
            run.step(overflows=True)
    assert [verdict.code for verdict in guard.verdicts] == ["CTC604"]


def test_the_method_is_put_back_after_the_last_guard() -> None:
    outer = quiet()
    with quiet():
        assert torch.amp.GradScaler.update is not PRISTINE
    assert torch.amp.GradScaler.update is not PRISTINE
    outer.close()
    assert torch.amp.GradScaler.update is PRISTINE


def test_a_method_that_somebody_else_put_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet():
        ours = torch.amp.GradScaler.update

        def theirs(self: Any, new_scale: Any = None) -> None:
            ours(self, new_scale)

        monkeypatch.setattr(torch.amp.GradScaler, "update", theirs)
    assert torch.amp.GradScaler.update is theirs
    monkeypatch.undo()
    torch_scaler.uninstall()
    torch.amp.GradScaler.update = PRISTINE  # type: ignore[method-assign]


def test_a_scale_on_a_device_is_read_with_the_rest() -> None:
    """The meta device stands for one whose values are not there yet: reading one would raise."""
    pending = Pending()
    scales = Scales(Guard(load(sinks=())), pending)
    scaler = torch.amp.GradScaler("cpu")
    scaler._scale = torch.ones((), device="meta")
    scales.updated(scaler, by_hand=False)
    assert len(pending._waiting) == 1
