"""On CUDA, for those who have it (``pytest -m gpu``): nothing waits that need not, and nothing is changed.

Without a device, tests/integrations/test_torch_cost.py holds tensors without values against the same promises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it

from ctcguard import CTCVerdictError, watch
from ctcguard.clock import ALWAYS_CALLS
from ctcguard.probes.log_probs import SAMPLED_VALUES
from ctcguard_integrations.torch_pending import Pending

DEVICE, CLASSES = "cuda", 20
CALLS = ALWAYS_CALLS + 9
SMALL = 4096
"""Bytes of one read."""

pytestmark = pytest.mark.gpu


class Loop:
    """A head on the device and its optimizer; labels where ``labels`` says, of the type that it says."""

    def __init__(self, frames: int = 60, labels: str = DEVICE, dtype: torch.dtype = torch.long) -> None:
        torch.manual_seed(0)
        self.frames, self.labels, self.dtype = frames, labels, dtype
        self.head = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(8, CLASSES)).to(DEVICE)
        self.optimizer = torch.optim.SGD(self.head.parameters(), lr=1e-2)
        self.losses: list[torch.Tensor] = []

    def loss(self, normalise: Callable[..., torch.Tensor] = torch.log_softmax) -> torch.Tensor:
        log_probs = normalise(self.head(torch.randn(self.frames, 4, 8, device=DEVICE)), -1)
        targets = torch.randint(1, CLASSES, (4 * 6,), device=self.labels).to(self.dtype)
        lengths = [torch.full((4,), number, dtype=self.dtype, device=self.labels) for number in (self.frames, 6)]
        return F.ctc_loss(log_probs, targets, *lengths)

    def step(self, losses: int = 1, **options: Any) -> None:
        self.optimizer.zero_grad()
        loss = torch.stack([self.loss(**options) for _ in range(losses)]).sum()
        loss.backward()
        self.optimizer.step()
        self.losses.append(loss.detach())

    def weights(self) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in self.head.parameters()]


@contextmanager
def synchronising_is(mode: str) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.fixture
def own_synchronising_is_permitted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The loss reads its lengths itself, which waits: that is torch's own."""
    original = torch.ctc_loss

    def permitted(*arguments: Any) -> torch.Tensor:
        with synchronising_is("default"):
            return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "ctc_loss", permitted)
        yield


@pytest.mark.usefixtures("own_synchronising_is_permitted")
@pytest.mark.parametrize("budget", [None, 1e-9])
@pytest.mark.parametrize("on_error", ["alert", "log"])
def test_nothing_synchronises_where_nothing_can_be_raised(on_error: Any, budget: float | None) -> None:
    loop = Loop()
    with watch(on_error=on_error, on_warning=on_error, budget=budget, sinks=()) as guard:
        for _ in range(CALLS):
            with synchronising_is("error"):
                loss = loop.loss()
            loss.backward()
            with synchronising_is("error"):
                loop.optimizer.step()
    assert guard.findings == []  # a read would have been an error, and that CTC902
    assert guard.guard.calls == CALLS


@pytest.mark.usefixtures("own_synchronising_is_permitted")
def test_twin_a_read_is_an_error() -> None:
    with synchronising_is("error"), pytest.raises(RuntimeError, match="synchroniz"):
        torch.ones((), device=DEVICE).item()


def test_with_raise_there_is_one_small_read_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    waits, copies = [], []
    send, synchronize = Pending.send, torch.cuda.Event.synchronize

    def sends(pending: Pending) -> None:
        before = len(pending._flights)
        send(pending)
        copies.extend(flight.host.nbytes for flight in pending._flights[before:])

    monkeypatch.setattr(Pending, "send", sends)
    monkeypatch.setattr(torch.cuda.Event, "synchronize", lambda event: (waits.append(event), synchronize(event)))
    loop = Loop()
    with watch(on_error="raise", sinks=()) as guard:
        loop.step(losses=3)  # with one utterance as a whole
        waits.clear(), copies.clear()
        for _ in range(5):
            loop.step(losses=3)
        assert (len(waits), len(copies)) == (5, 5)
    assert guard.findings == []
    assert max(copies) < SMALL


def test_what_was_measured_is_judged_later_without_waiting() -> None:
    loop = Loop()
    with watch(on_error="log", on_warning="log", sinks=()) as guard:
        loop.step(normalise=torch.softmax)
        torch.cuda.synchronize()
        loop.step()
        assert {finding.code for finding in guard.findings if finding.step == 0} >= {"CTC402"}


def test_a_verdict_comes_before_the_weights_are_touched() -> None:
    loop = Loop()
    before = loop.weights()
    with pytest.raises(CTCVerdictError) as caught, watch(sinks=()):
        loop.step(normalise=torch.softmax)
    assert (caught.value.verdict.code, caught.value.verdict.cause) == ("CTC402", "probabilities")
    assert all(map(torch.equal, before, loop.weights()))


@pytest.mark.parametrize("on_error", ["raise", "log"])
def test_weights_and_random_numbers_are_bit_equal(on_error: Any) -> None:
    """By the implementation of cuDNN, which can be deterministic: that of torch adds gradients up in any order."""

    def trained(guarded: bool) -> tuple[Any, ...]:
        loop = Loop(labels="cpu", dtype=torch.int32)
        guard = watch(on_error=on_error, sinks=()) if guarded else None
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
            for _ in range(20):
                loop.step()
        if guard is not None:
            guard.close()
            assert guard.findings == []
            assert guard.guard.calls == 20
        return *loop.weights(), *loop.losses, torch.cuda.get_rng_state(), torch.get_rng_state()

    assert all(map(torch.equal, trained(False), trained(True)))


def test_memory_of_a_guarded_call_is_a_few_samples() -> None:
    def peak(guarded: bool) -> int:
        loop = Loop(frames=4000)
        guard = watch(on_error="log", budget=None, sinks=()) if guarded else None
        loop.step()  # what is made once
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loop.loss()
        found = torch.cuda.max_memory_allocated() - before
        if guard is not None:
            guard.close()
        return found

    assert peak(True) - peak(False) <= 4 * 4 * SAMPLED_VALUES
