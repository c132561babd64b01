"""What guarding takes of memory: a few samples at its peak, then packed readings, and nothing of a batch."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ctcguard.depth
import ctcguard_integrations.torch_seam as torch_seam
from ctcguard import guard_step, watch
from ctcguard.call import CTCCall
from ctcguard.probes.log_probs import SAMPLED_VALUES

SAMPLE = 4 * SAMPLED_VALUES
"""Bytes of the scores that a look reads."""
PACKED = 4096
"""Bytes that stay until they are judged."""
SIZES = [(12_000, 16, 20), (250, 16, 1000), (50, 16, 5000)]
LATER = {"sinks": (), "on_error": "alert", "on_warning": "alert", "ignore": ("CTC603",)}
"""Nothing is read at a call."""


def limit(size: tuple[int, int, int]) -> int:
    """Bytes at the peak: a sample and half as much worked out of it, and the largest score and masks of each frame."""
    return 3 * SAMPLE // 2 + 12 * size[0] * size[1] + PACKED


class Alive(TorchDispatchMode):
    """Counts the bytes of all tensors that torch makes, on any device, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def know(self, tensor: torch.Tensor) -> None:
        """Count a tensor that was there before as none."""
        storage = tensor.untyped_storage()
        self._known[id(storage)] = weakref.ref(storage)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        known = self._known.get(id(storage))
        if known is None or known() is None:
            self._known[id(storage)] = weakref.ref(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage.nbytes())

    def _gone(self, size: int) -> None:
        self.now -= size


# The peak.


@pytest.fixture
def away() -> Iterator[Callable[..., tuple[int, int]]]:
    """Bytes that a guarded call takes at its peak, and leaves, where all tensors are on a device without values."""

    def on_a_device(log_probs: torch.Tensor, *_: Any) -> torch.Tensor:
        return log_probs.new_empty(log_probs.shape[1])

    def taken(size: tuple[int, int, int], number: int, **settings: Any) -> tuple[int, int]:
        given = [torch.empty(size, device="meta"), torch.ones(size[1], 9, dtype=torch.long, device="meta")]
        given += [torch.full((size[1],), length, device="meta") for length in (size[0], 9)]
        guard = watch(**LATER, **settings)
        try:
            for _ in range(number - 1):
                F.ctc_loss(*given, reduction="none")
                guard._pending._waiting.clear()
            with Alive() as alive:
                for tensor in given:
                    alive.know(tensor)
                F.ctc_loss(*given, reduction="none")
            assert len(guard._pending._waiting) == 1
            found = alive.peak, alive.now
            guard._pending._waiting.clear()
        finally:
            guard.close()
        assert guard.findings == []
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "ctc_loss", on_a_device)
        patch.setattr(torch_seam, "_has_no_values", lambda tensor: False)
        yield taken


@pytest.mark.parametrize("size", SIZES)
def test_on_a_device_a_look_takes_a_few_samples_and_leaves_packed_readings(
    size: tuple[int, int, int], away: Callable[..., tuple[int, int]]
) -> None:
    peak, left = away(size, 2, budget=None)
    assert 4 * np.prod(size) > 3 * limit(size)
    assert SAMPLE / 2 < peak <= limit(size)
    assert 0 < left <= PACKED


def test_on_a_device_a_brief_look_takes_packed_readings_only(away: Callable[..., tuple[int, int]]) -> None:
    peak, left = away(SIZES[1], 33, budget=1e-9)
    assert left <= peak <= 2 * PACKED


def test_twin_a_probe_that_copies_the_scores_is_seen(
    away: Callable[..., tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def copies(call: CTCCall) -> dict[str, Any]:
        return {"score_max": (call.scores * 1.0).amax((0, 1, 2))}

    depth = ctcguard.depth.FULL
    monkeypatch.setattr(ctcguard.depth, "FULL", depth._replace(probes=(*depth.probes, copies)))
    assert away(SIZES[0], 2, budget=None)[0] > limit(SIZES[0])


class Loop:
    """A head and its optimizer; each step has a batch of its own."""

    def __init__(self, size: tuple[int, int, int] = (60, 4, 20)) -> None:
        self.size = size
        self.head = torch.nn.Linear(8, size[2])
        self.optimizer = torch.optim.SGD(self.head.parameters(), 1e-3)
        self.given: dict[str, Any] = {}

    def step(self, normalise: Callable[..., torch.Tensor] = torch.log_softmax) -> None:
        """Of its batch, `given` keeps weak references."""
        frames, batch, classes = self.size
        features, targets = torch.randn(frames, batch, 8), torch.randint(1, classes, (batch, 9))
        lengths = torch.full((batch,), frames), torch.full((batch,), 9)
        log_probs = normalise(self.head(features), -1)
        of_batch = {"features": features, "log_probs": log_probs, "targets": targets, "lengths": lengths[0]}
        self.given = {name: weakref.ref(tensor.untyped_storage()) for name, tensor in of_batch.items()}
        F.ctc_loss(log_probs, targets, *lengths).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def alive(self) -> list[str]:
        """What of the batch still is."""
        gc.collect()
        return [name for name, storage in self.given.items() if storage() is not None]


@pytest.mark.parametrize("size", SIZES[1:])
def test_on_the_host_a_guarded_step_takes_a_few_samples(size: tuple[int, int, int]) -> None:
    def taken(guarded: bool) -> tuple[int, int]:
        loop = Loop((20, *size[1:]))
        guard = watch(sinks=(), budget=None) if guarded else None
        loop.step()  # what is made once
        loop.size = size
        gc.collect()
        with Alive() as alive:
            tracemalloc.start()  # numpy tells it what it takes
            loop.step()
            of_numpy = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        if guard is not None:
            guard.close()
            assert guard.findings == []
        return alive.peak, of_numpy

    plain, guarded = taken(False), taken(True)
    assert guarded[0] - plain[0] <= PACKED
    assert guarded[1] <= limit(size) + SAMPLE


# What stays.


LABELS = ["targets", "lengths"]
"""They are kept until the step is known to be over: there may be another optimizer. The next call ends it."""


@pytest.mark.parametrize("budget", [None, 1e-9])
@pytest.mark.parametrize("on_error", ["raise", "log"])
def test_nothing_of_a_batch_outlives_its_step(on_error: Any, budget: float | None) -> None:
    loop = Loop()
    with watch(sinks=(), on_error=on_error, budget=budget) as guard:
        for number in range(36):
            before = loop.given
            loop.step()
            if number in (1, 35):
                assert set(loop.alive()) <= set(LABELS)
                assert [name for name, storage in before.items() if storage() is not None] == []
    assert guard.findings == []
    assert guard.guard.calls == 36
    assert loop.alive() == []


def test_of_a_call_that_fired_its_record_stays_and_not_the_batch() -> None:
    loop = Loop()
    with watch(sinks=("jsonl",), on_error="alert", run_dir="run") as guard:
        loop.step()
        loop.step(torch.softmax)
        assert set(loop.alive()) <= set(LABELS)
    assert {"CTC402"} <= {finding.code for finding in guard.findings}
    assert [path.name for path in Path("run").glob("*.safetensors")] == ["1-CTC402.safetensors"]
    assert loop.alive() == []


def test_twin_a_guard_that_keeps_its_calls_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CTCCall, "without_arrays", lambda call: call)
    loop = Loop()
    with watch(sinks=()):
        loop.step()
        assert "log_probs" in loop.alive()


def test_nothing_of_a_batch_of_jax_outlives_its_step() -> None:
    def loss(head: jax.Array, data: dict[str, jax.Array]) -> jax.Array:
        found = optax.ctc_loss(data["features"] @ head, data["paddings"], data["labels"], data["label_paddings"])
        return found.mean()

    @jax.jit
    def step(head: jax.Array, data: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(head, data)
        return head - 0.01 * gradient, value

    def batch(number: int) -> dict[str, jax.Array]:
        random = np.random.default_rng(number)
        arrays = {
            "features": random.normal(size=(3, 30, 8)).astype(np.float32),
            "paddings": np.zeros((3, 30), np.float32),
            "labels": random.integers(1, 12, (3, 6)).astype(np.int32),
            "label_paddings": np.zeros((3, 6), np.float32),
        }
        return {name: jnp.asarray(array) for name, array in arrays.items()}

    head = jnp.asarray(np.random.default_rng(9).normal(size=(8, 12)), jnp.float32)
    guarded = guard_step(step, sinks=(), on_error="log", on_warning="log", budget=None)
    before: list[Any] = []
    for number in range(4):
        data = batch(number)
        now = [weakref.ref(array) for array in data.values()]
        head, _ = guarded(head, data)
        del data
        gc.collect()
        assert [each() for each in before] == [None] * len(before)
        before = now
    guarded.close()
    gc.collect()
    assert [each() for each in before] == [None] * len(before)
    assert guarded.findings == []
