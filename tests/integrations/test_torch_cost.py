"""What guarding costs a PyTorch step besides time: nothing waits for a device, and nothing is kept.

CUDA is not needed: tensors without values stand for those on a device, and whoever reads one of them raises.
"""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch._subclasses.fake_tensor import FakeTensorMode

import ctcguard.depth
import ctcguard_integrations.torch_capture as torch_capture
import ctcguard_integrations.torch_seam as torch_seam
from ctcguard import watch
from ctcguard.clock import ALWAYS_CALLS
from ctcguard.probes.log_probs import SAMPLED_VALUES
from ctcguard_integrations.torch_loop import Watch
from ctcguard_integrations.torch_pending import Pending

CALLS = ALWAYS_CALLS + 9
"""With a budget that is spent, the last ones are measured in short."""


class Event:
    """Stands for an event of CUDA: one that never comes, unless it is waited for."""

    waits = 0

    def __init__(self, **_: Any) -> None:
        """Nothing is there to be recorded."""

    def record(self) -> None:
        """As CUDA does, without waiting."""

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        Event.waits += 1


@pytest.fixture
def away() -> Iterator[Callable[[], torch.Tensor]]:
    """A call of the loss on a device that has no values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "ctc_loss", lambda log_probs, *_: log_probs.new_empty(log_probs.shape[1]))
        patch.setattr(torch_seam, "_has_no_values", lambda tensor: False)
        given = torch.empty(50, 4, 20, device="meta"), torch.ones(4, 6, dtype=torch.long, device="meta")
        lengths = [torch.full((4,), number, device="meta") for number in (50, 6)]
        yield lambda: F.ctc_loss(*given, *lengths, reduction="none")


def guarded(loss: Callable[[], torch.Tensor], on_error: Any, budget: float | None = None) -> tuple[Watch, int]:
    """Calls under a guard: it, and how many of them were measured and wait to be read."""
    waiting = 0
    guard = watch(on_error=on_error, on_warning=on_error, ignore=("CTC603",), budget=budget, sinks=())
    try:
        for _ in range(CALLS):
            loss()
            waiting += len(guard._pending._waiting)
            guard._pending._waiting.clear()
    finally:
        guard.close()
    return guard, waiting


@pytest.mark.parametrize("budget", [None, 1e-9])
@pytest.mark.parametrize("on_error", ["alert", "raise"])
def test_nothing_is_read_from_a_device_during_a_call(
    away: Callable[[], torch.Tensor], on_error: str, budget: float | None
) -> None:
    guard, waiting = guarded(away, on_error, budget)
    assert guard.findings == []
    assert waiting == CALLS


def test_a_probe_that_reads_a_scalar_is_caught(
    away: Callable[[], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading(call: Any) -> dict[str, Any]:
        return {"score_max": call.scores.amax(2).amax(1) * bool(call.scores.amax() > 0)}

    depth = ctcguard.depth.FULL
    monkeypatch.setattr(ctcguard.depth, "FULL", depth._replace(probes=(*depth.probes, reading)))
    guard, waiting = guarded(away, "alert")
    assert [finding.code for finding in guard.findings] == ["CTC902"]
    assert "meta tensors" in guard.findings[0].message
    assert waiting == 0


@pytest.mark.parametrize("wait", [False, True])
def test_the_copy_to_the_host_is_waited_for_only_when_it_must(monkeypatch: pytest.MonkeyPatch, wait: bool) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    Event.waits, pending = 0, Pending()
    with FakeTensorMode():  # it lets a CUDA tensor exist where there is no CUDA
        for _ in range(3):
            pending.add(torch.empty(40, device="cuda"), lambda values: None)
        pending.send()
        (flight,) = pending._flights
        assert flight.host.device.type == "cpu"
    flight.host, flight.judges = torch.zeros(0), []
    pending.read(wait=wait)
    assert (Event.waits, len(pending._flights)) == ((1, 0) if wait else (0, 1))


class Loop:
    """Three losses a step, on the way of a device."""

    def __init__(self, features: int = 8) -> None:
        self.head = torch.nn.Linear(features, 20)
        self.optimizer = torch.optim.SGD(self.head.parameters(), lr=1e-3)

    def log_probs(self, frames: int = 60, batch: int = 4) -> torch.Tensor:
        return self.head(torch.randn(frames, batch, self.head.in_features)).log_softmax(-1)

    def loss(self, log_probs: torch.Tensor) -> torch.Tensor:
        frames, batch = log_probs.shape[:2]
        return F.ctc_loss(log_probs, torch.randint(1, 20, (batch, 6)), [frames] * batch, [6] * batch)

    def step(self) -> None:
        torch.stack([self.loss(self.log_probs()) for _ in range(3)]).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each read in five steps whose tensors are said to be on a device."""

    def spied(tensor: torch.Tensor) -> torch.Tensor:
        copies.append(tensor.nbytes)
        return tensor

    copies: list[int] = []
    monkeypatch.setattr(torch_capture, "is_host", lambda value: False)
    monkeypatch.setattr("ctcguard_integrations.torch_gradients.is_host", lambda value: False)
    loop = Loop()
    with watch(on_error="raise", sinks=()) as guard:
        monkeypatch.setattr(torch.Tensor, "cpu", spied)
        loop.step()  # with one utterance as a whole
        copies.clear()
        for _ in range(5):
            loop.step()
        assert guard.findings == []
    return copies


def test_with_raise_there_is_one_small_read_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = reads(monkeypatch)
    assert len(copies) == 5
    assert max(copies) < 4096


def test_twin_a_read_at_every_call_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctcguard_integrations.torch_pending.LONGEST", 1)
    assert len(reads(monkeypatch)) > 5


def test_nothing_of_a_batch_outlives_its_step() -> None:
    loop = Loop()
    with watch(sinks=()) as guard:
        for _ in range(3):
            log_probs = loop.log_probs()
            storage = weakref.ref(log_probs.untyped_storage())
            loop.loss(log_probs).backward()
            loop.optimizer.step()
            assert storage() is not None
            del log_probs
            gc.collect()
            assert storage() is None
        assert guard.guard.calls == 3


@pytest.mark.parametrize("number", [ALWAYS_CALLS, ALWAYS_CALLS + 1], ids=["a look", "in short"])
def test_memory_of_a_guarded_call_is_a_few_samples(number: int) -> None:
    loop = Loop()
    loss = loop.loss
    with watch(sinks=(), budget=None) as guard:
        loss(loop.log_probs())  # what is made once
        peaks = []
        for frames in (500, 4000):
            guard.guard.calls = number - 1
            log_probs = loop.log_probs(frames, 16)
            tracemalloc.start()  # numpy tells it what it takes
            loss(log_probs)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert log_probs.nbytes > 5e6
    assert max(peaks) < 6 * 4 * SAMPLED_VALUES


@pytest.mark.gpu
def test_on_a_gpu_nothing_synchronises() -> None:
    head = torch.nn.Linear(8, 20, device="cuda")
    optimizer = torch.optim.SGD(head.parameters(), lr=1e-3)
    targets = torch.randint(1, 20, (4, 6), device="cuda")
    lengths = [torch.full((4,), number, device="cuda") for number in (60, 6)]
    with watch(on_error="alert", sinks=()) as guard:
        for _ in range(CALLS):
            log_probs = head(torch.randn(60, 4, 8, device="cuda")).log_softmax(-1)
            case = guard._capture.torch_call(
                {"log_probs": log_probs, "targets": targets, "input_lengths": lengths[0], "target_lengths": lengths[1]}
                | {"blank": 0, "reduction": 1, "zero_infinity": False}
            )
            losses = F.ctc_loss(log_probs, targets, *lengths, reduction="none")
            torch.cuda.set_sync_debug_mode("error")
            try:
                guard._capture.measure(guard._capture.open(case, log_probs), losses)
                guard.stepping(optimizer)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    assert guard.findings == []
