"""Modes of torch and numpy, threads, generators, cells run twice, exceptions of the user's own."""

from __future__ import annotations

import contextlib
import gc
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from ctcguard import CTCVerdictError
from ctcguard_integrations.torch_loop import Watch, watch
from tests.faults.training import (
    FOUND,
    RUN_DIR,
    WRONG,
    Model,
    Run,
    at,
    guarded,
    lines,
    loss_of,
    own_faults,
    train,
    written,
)
from tests.modes import deterministic

PRISTINE = torch.ctc_loss


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        yield


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype float16": lambda: default_dtype(torch.float16),
    "default device meta": lambda: torch.device("meta"),
    "deterministic algorithms": deterministic,
    "anomaly mode": lambda: torch.autograd.set_detect_anomaly(True, check_nan=False),
    "numpy raises, warnings are errors": warnings_are_errors,
    "numpy prints": lambda: np.printoptions(precision=1, threshold=2),
    "profiler": lambda: torch.autograd.profiler.profile(),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("mode", MODES)
def test_a_mode_of_the_users_own(mode: str) -> None:
    with MODES[mode]():
        guard = watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl",), budget=None)
        model = torch.nn.Sequential(torch.nn.Linear(8, 12, device="cpu", dtype=torch.float32))
        generator = torch.Generator("cpu").manual_seed(0)
        losses = [loss_of(model, generator, wrong) for wrong in (False, True, False)]
        losses[0].backward()
        torch.optim.SGD(model.parameters(), 0.1).step()
        guard.close()
    assert own_faults(guard.findings) == []
    assert written() == FOUND


@pytest.mark.parametrize("quiet", [torch.no_grad, torch.inference_mode, lambda: torch.set_grad_enabled(False)])
def test_without_gradients_it_is_evaluation(quiet: Any) -> None:
    with watch(on_error="raise", run_dir=RUN_DIR, sinks=("jsonl",)) as guard:
        with quiet():
            loss_of(Model(), torch.Generator().manual_seed(0), wrong=True)
            assert torch.is_grad_enabled() is False
        assert train(wrong=()).same(train(wrong=()))
    torch.set_grad_enabled(True)
    assert own_faults(guard.findings) == []
    assert {record["phase"] for record in lines("finding")} == {"eval"}
    assert written() == FOUND


def test_a_mode_is_left_as_it_was() -> None:
    with warnings_are_errors(), default_dtype(torch.float64), watch(on_error="alert", run_dir=RUN_DIR):
        before = np.geterr(), torch.get_default_dtype(), torch.get_rng_state().tolist(), torch.is_grad_enabled()
        loss_of(torch.nn.Linear(8, 12, dtype=torch.float32), torch.Generator().manual_seed(0), wrong=True)
        middle = np.geterr(), torch.get_default_dtype(), None, torch.is_grad_enabled()
    assert (before[0], before[1], before[3]) == (middle[0], middle[1], middle[3])


def test_two_models_in_two_threads_under_one_guard() -> None:
    def both(runs: dict[int, Run]) -> None:
        models = {seed: Model(seed) for seed in (1, 2)}
        barrier = threading.Barrier(2, timeout=30)

        def work(seed: int) -> None:
            barrier.wait()
            runs[seed] = train(wrong=(30,) if seed == 1 else (), steps=40, model=models[seed])

        threads = [threading.Thread(target=work, args=(seed,)) for seed in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    without: dict[int, Run] = {}
    within: dict[int, Run] = {}
    both(without)
    with watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl",), budget=None) as guard:
        both(within)
    assert all(within[seed].same(without[seed]) for seed in (1, 2))
    assert own_faults(guard.findings) == []
    assert guard.guard.calls == 80
    assert written() == FOUND


class Asked(torch.nn.Parameter):
    """Notes which threads ask for its gradient."""

    by: ClassVar[set[int]] = set()

    @property
    def grad(self) -> torch.Tensor | None:
        self.by.add(threading.get_ident())
        return super().grad


def test_the_gradient_of_another_threads_head_is_not_asked_for() -> None:
    """While its backward pass replaces it, torch reads freed memory: the process died, once in a few hundred runs."""
    mine, other = Model(1), Model(2)
    other[2].weight, other[2].bias = Asked(other[2].weight.detach()), Asked(other[2].bias.detach())
    optimizer = torch.optim.SGD(mine.parameters(), 1e-2)

    def elsewhere() -> None:
        loss_of(other, torch.Generator().manual_seed(2), wrong=False).backward()
        torch.optim.SGD(other.parameters(), 1e-2).step()

    with watch(run_dir=RUN_DIR, sinks=("jsonl",), budget=None) as guard:
        loss = loss_of(mine, torch.Generator().manual_seed(1), wrong=False)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(60)
        loss.backward()
        optimizer.step()
    assert Asked.by == {thread.ident}
    assert guard.findings == []


def test_a_cell_run_twice() -> None:
    """The first guard was never closed; the second one judges, and one verdict is told."""
    first = watch(on_error="alert", run_dir=RUN_DIR / "first", sinks=("jsonl",))
    second = watch(on_error="alert", run_dir=RUN_DIR / "second", sinks=("jsonl",))
    train()
    second.close()
    first.close()
    assert torch.ctc_loss is PRISTINE
    assert written(RUN_DIR / "second") == FOUND
    assert [record["type"] for record in lines("end", RUN_DIR / "first")] == ["end"]
    assert first.findings == []


def test_a_cell_run_again_after_a_verdict() -> None:
    for number in range(2):
        with pytest.raises(CTCVerdictError), watch(run_dir=RUN_DIR / str(number), sinks=("jsonl",)):
            train()
        assert torch.ctc_loss is PRISTINE
        assert written(RUN_DIR / str(number)) >= {"CTC402"}


def test_a_guard_that_nobody_keeps() -> None:
    """As a plain call whose result is dropped: it goes on watching until the process ends or it is closed."""
    guard = weakref.ref(watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl",)))
    gc.collect()
    train()
    found = guard()
    assert isinstance(found, Watch)
    found.close()
    assert written() == FOUND


def test_a_generator_that_is_never_finished() -> None:
    def epochs() -> Iterator[Run]:
        with watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl",)):
            while True:
                yield train()

    loop = epochs()
    next(loop)
    assert torch.ctc_loss is not PRISTINE
    del loop
    gc.collect()
    assert torch.ctc_loss is PRISTINE
    assert written() == FOUND
    assert len(lines("end")) == 1


def test_a_generator_is_resumed_in_another_thread() -> None:
    def steps() -> Iterator[torch.Tensor]:
        model, generator = Model(), torch.Generator().manual_seed(0)
        with watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl",)):
            for step in range(4):
                yield loss_of(model, generator, wrong=step == 2)

    loop = steps()
    next(loop)
    thread = threading.Thread(target=lambda: list(loop))
    thread.start()
    thread.join(60)
    assert torch.ctc_loss is PRISTINE
    assert written() == FOUND


def test_a_model_that_was_collected() -> None:
    with watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl",)) as guard:
        for seed in range(4):
            model = Model(seed)
            alive = weakref.ref(model)
            train(wrong=(WRONG,) if seed == 3 else (), model=model)
            del model
            gc.collect()
            assert alive() is None
    assert own_faults(guard.findings) == []
    assert written() == FOUND


class OwnError(Exception):
    """Of the user's."""


@pytest.mark.parametrize("kind", [OwnError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, StopIteration])
def test_an_exception_of_the_users_own_step(kind: type[BaseException]) -> None:
    own = kind("theirs")

    def fails() -> None:
        raise own

    with pytest.raises(kind) as caught:
        guarded(at(WRONG + 1, fails))
    assert caught.value is own
    assert caught.value.__context__ is None
    assert torch.ctc_loss is PRISTINE
    assert written() == FOUND
    assert len(lines("end")) == 1


@pytest.mark.parametrize("kind", [OwnError, KeyboardInterrupt])
def test_an_exception_out_of_backward(kind: type[BaseException]) -> None:
    def fails(gradient: torch.Tensor) -> None:
        raise kind("theirs")

    model = Model()
    next(model.parameters()).register_hook(fails)
    with pytest.raises(kind), watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl",)) as guard:
        loss_of(model, torch.Generator().manual_seed(0), wrong=True).backward()
    assert own_faults(guard.findings) == []
    assert written() == FOUND


def test_an_interrupt_while_the_guard_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C belongs to the user, wherever it arrives."""
    from ctcguard.rules.loss.negative_loss import NegativeLoss

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(NegativeLoss, "check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        guarded()
    assert torch.ctc_loss is PRISTINE
    assert len(lines("end")) == 1


class Unspeakable:
    """An id without a text."""

    def __str__(self) -> str:
        raise ValueError("no text")


def test_ids_that_have_no_text() -> None:
    with watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl",)) as guard:
        guard.batch([Unspeakable(), "clip 2", 3])
        loss_of(Model(), torch.Generator().manual_seed(0), wrong=True)
    assert own_faults(guard.findings) == []
    assert {item["id"] for record in lines("finding") for item in record["utterances"]} >= {"<Unspeakable>", "clip 2"}


@pytest.mark.parametrize("ids", [[], ["one"], ["x"] * 99, ["\ud800", "\x00", "\x1b[2J"], [None, 2, b"\xff"]])
def test_ids_of_any_number_and_kind(ids: list[Any]) -> None:
    with watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl", "console")) as guard:
        guard.batch(ids)
        loss_of(Model(), torch.Generator().manual_seed(0), wrong=True)
    assert own_faults(guard.findings) == []
    assert written() == FOUND


@pytest.mark.parametrize("state", [{}, {"step": "x"}, None, [], {"step": 3, "history": 5, "reported": {}}], ids=str)
def test_a_state_that_is_none(state: Any) -> None:
    with watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl",), budget=None) as guard:
        guard.load_state_dict(state)
        train()
    assert [fault.readings["where"] for fault in own_faults(guard.findings)] == ["load_state_dict"]
    assert written() >= FOUND
