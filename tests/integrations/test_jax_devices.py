"""Guarded steps on four devices. JAX fixes their number when it starts: they run in a process of their own."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ctcguard import CTCVerdictError, guard_step

DEVICES = 4
HERE = os.environ.get("JAX_NUM_CPU_DEVICES") == str(DEVICES)
CLASSES, FRAMES, LABELS, STEPS = 12, 30, 5, 3
ADAM = optax.adam(1e-2)


def batch(step: int, classes: int = CLASSES) -> dict[str, np.ndarray]:
    random = np.random.default_rng(step)
    labels = random.integers(1, CLASSES, (8, LABELS)).astype(np.int32)
    labels[5, 2] = classes - 1
    return {
        "features": random.normal(size=(8, FRAMES, 6)).astype(np.float32),
        "frame_paddings": (np.arange(FRAMES)[None] >= random.integers(20, FRAMES + 1, (8, 1))).astype(np.float32),
        "labels": labels,
        "label_paddings": np.zeros((8, LABELS), np.float32),
    }


def loss_of(weights: jax.Array, data: Any) -> jax.Array:
    logits = jnp.tanh(data["features"]) @ weights
    return optax.ctc_loss(logits, data["frame_paddings"], data["labels"], data["label_paddings"]).mean()


def updated(weights: Any, state: Any, gradient: Any) -> Any:
    updates, state = ADAM.update(gradient, state, weights)
    return optax.apply_updates(weights, updates), state


def plain(weights: Any, state: Any, data: Any) -> Any:
    loss, gradient = jax.value_and_grad(loss_of)(weights, data)
    return *updated(weights, state, gradient), loss


def replica(weights: Any, state: Any, data: Any) -> Any:
    loss, gradient = jax.value_and_grad(loss_of)(weights, data)
    return *updated(weights, state, jax.lax.pmean(gradient, "devices")), jax.lax.pmean(loss, "devices")


def start() -> Any:
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(6, CLASSES)), jnp.float32)
    return weights, ADAM.init(weights)


def loop(step: Any, classes: int = CLASSES) -> Any:
    weights, state = start()
    for number in range(STEPS):
        weights, state, _ = step(weights, state, batch(number, classes))
    return weights, state


def replicated_loop(step: Any, classes: int = CLASSES) -> Any:
    weights, state = jax.tree.map(lambda x: jnp.broadcast_to(x, (DEVICES, *x.shape)), start())
    for number in range(STEPS):
        data = jax.tree.map(lambda x: x.reshape(DEVICES, 2, *x.shape[1:]), batch(number, classes))
        weights, state, _ = step(weights, state, data)
    return weights, state


@functools.cache
def steps() -> dict[str, tuple[Callable[..., Any], Callable[..., Any], str, int]]:
    """Step, loop, route, calls in a step."""
    mesh = jax.make_mesh((DEVICES,), ("devices",), axis_types=(AxisType.Auto,))
    everywhere, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("devices"))
    places: dict[str, Any] = {
        "in_shardings": (everywhere, everywhere, split),
        "out_shardings": (everywhere, everywhere, everywhere),
    }
    sharded = functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), P(), P("devices")), out_specs=P())
    return {
        "pmap": (jax.pmap(replica, axis_name="devices"), replicated_loop, "auxiliary", DEVICES),
        "pmap, donated": (
            jax.pmap(replica, axis_name="devices", donate_argnums=(0, 1)),
            replicated_loop,
            "auxiliary",
            DEVICES,
        ),
        "shardings": (jax.jit(plain, **places), loop, "auxiliary", 1),
        "shardings, donated": (jax.jit(plain, donate_argnums=(0, 1), **places), loop, "auxiliary", 1),
        "shard_map": (jax.jit(sharded(replica, check_vma=False)), loop, "callback", DEVICES),
    }


KINDS = ["pmap", "pmap, donated", "shardings", "shardings, donated", "shard_map"]

if HERE:

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("reaction", ["raise", "log"])
    def test_neutral_and_silent_when_healthy_stopped_when_broken(kind: str, reaction: str) -> None:
        assert list(steps()) == KINDS
        assert len(jax.devices()) == DEVICES
        step, run, route, calls = steps()[kind]
        guarded = guard_step(step, on_error=reaction, on_warning=reaction, sinks=())
        own, ours = run(step), run(guarded)
        guarded.flush()
        assert jax.tree.all(jax.tree.map(np.array_equal, own, ours))
        assert jax.tree.map(lambda x: x.sharding, own) == jax.tree.map(lambda x: x.sharding, ours)
        assert guarded.findings == []
        assert guarded.guard.end_record()["routes"][route] == STEPS * calls
        if reaction == "raise":
            with pytest.raises(CTCVerdictError):
                run(guarded, CLASSES + 3)
        else:
            run(guarded, CLASSES + 3)
        guarded.close()
        found = [finding for finding in guarded.findings if finding.code == "CTC201"]
        assert {f.step for f in found} == ({STEPS} if reaction == "raise" else set(range(STEPS, 2 * STEPS)))
        assert all(labels[2] == CLASSES + 2 for f in found for labels in [f.utterances[0].labels or ()])

else:

    def test_on_four_devices(tmp_path: Path) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
        usual = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        environment = usual | {"JAX_NUM_CPU_DEVICES": str(DEVICES)}
        root = Path(__file__).parents[2]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=root)
        assert done.returncode == 0, done.stdout
        assert f"{2 * len(KINDS)} passed" in done.stdout
