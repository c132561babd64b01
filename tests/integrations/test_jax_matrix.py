"""Every loop (plain pytree, linen, nnx) in every way that JAX runs a step: guarded, neutral, silent, stopped.

JAX fixes the number of its devices when it starts: all of it runs on four, in a process of its own.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ctcguard import CTCVerdictError, guard_step, observe

DEVICES = 4
HERE = os.environ.get("JAX_NUM_CPU_DEVICES") == str(DEVICES)
AS_USERS = {
    "xla_llvm_disable_expensive_passes": False,
    "xla_backend_optimization_level": 3,
    "xla_cpu_use_fusion_emitters": True,
    "xla_cpu_parallel_codegen_split_count": 32,
}
"""All of the compiler's efforts, which the tests go without otherwise."""
BATCH, FRAMES, FEATURES, CLASSES, LABELS, STEPS = 8, 30, 6, 12, 5, 2
ADAM = optax.adam(1e-2)
ULPS = 4


def batch(step: int, classes: int = CLASSES) -> dict[str, np.ndarray]:
    """In two utterances each, as the devices get them; with more classes, one label of the sixth is beyond the head."""
    random = np.random.default_rng(step)
    labels = random.integers(1, CLASSES, (BATCH, LABELS)).astype(np.int32)
    labels[5, 2] = classes - 1
    return {
        "features": random.normal(size=(BATCH, FRAMES, FEATURES)).astype(np.float32),
        "frame_paddings": (np.arange(FRAMES)[None] >= random.integers(20, FRAMES + 1, (BATCH, 1))).astype(np.float32),
        "labels": labels,
        "label_paddings": np.zeros((BATCH, LABELS), np.float32),
    }


def parts(data: Any, count: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(count, BATCH // count, *x.shape[1:]), data)


def losses(logits: jax.Array, data: Any) -> jax.Array:
    return optax.ctc_loss(logits, data["frame_paddings"], data["labels"], data["label_paddings"])


def losses_of_auto_axes(logits: jax.Array, data: Any) -> jax.Array:
    """`optax.ctc_loss` begins its scan with zeros of no sharding: with shardings as types it must be left to XLA."""
    return jax.sharding.auto_axes(losses, out_sharding=P("devices"))(logits, data)


def alone(values: Any) -> Any:
    return values


def mean_of_devices(values: Any) -> Any:
    return jax.lax.pmean(values, "devices")


class How(NamedTuple):
    """What differs inside of the step."""

    around: Callable[..., Any] = alone  # the loss of the parameters
    losses: Callable[..., Any] = losses
    together: Callable[..., Any] = alone  # loss and gradients


# The loops: each step takes what is trained and a batch.


def pytree() -> Any:
    random = np.random.default_rng(0)
    weights = {"head": jnp.asarray(random.normal(size=(FEATURES, CLASSES)), jnp.float32)}
    return weights, ADAM.init(weights)


def pytree_step(how: How, trained: Any, data: Any) -> Any:
    weights, state = trained

    def mean(weights: Any) -> jax.Array:
        return how.losses(jnp.tanh(data["features"]) @ weights["head"], data).mean()

    loss, gradients = how.together(jax.value_and_grad(how.around(mean))(weights))
    updates, state = ADAM.update(gradients, state, weights)
    return (optax.apply_updates(weights, updates), state), loss


class Linen(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return flax.linen.Dense(CLASSES, use_bias=False)(jnp.tanh(x))


@functools.cache
def linen_weights() -> Any:
    return jax.tree.map(np.asarray, Linen().init(jax.random.key(0), batch(0)["features"])["params"])


def linen() -> TrainState:
    return TrainState.create(apply_fn=Linen().apply, params=jax.tree.map(jnp.asarray, linen_weights()), tx=ADAM)


def linen_step(how: How, trained: TrainState, data: Any) -> Any:
    def mean(weights: Any) -> jax.Array:
        return how.losses(trained.apply_fn({"params": weights}, data["features"]), data).mean()

    loss, gradients = how.together(jax.value_and_grad(how.around(mean))(trained.params))
    return trained.apply_gradients(grads=gradients), loss


class Nnx(nnx.Module):
    def __init__(self) -> None:
        self.head = nnx.Linear(FEATURES, CLASSES, use_bias=False, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(jnp.tanh(x))


def of_nnx() -> Any:
    model = Nnx()
    return model, nnx.Optimizer(model, ADAM, wrt=nnx.Param)


def nnx_step(how: How, model: Nnx, optimizer: Any, data: Any) -> jax.Array:
    def mean(model: Nnx) -> jax.Array:
        return how.losses(model(data["features"]), data).mean()

    loss, gradients = how.together(nnx.value_and_grad(how.around(mean))(model))
    optimizer.update(model, gradients)
    return loss  # type: ignore[no-any-return]


# The ways to run them.


@functools.cache
def mesh(kind: AxisType = AxisType.Auto) -> jax.sharding.Mesh:
    return jax.make_mesh((DEVICES,), ("devices",), axis_types=(kind,))


def places(kind: AxisType = AxisType.Auto) -> tuple[NamedSharding, NamedSharding]:
    """Everywhere, and split by utterances."""
    return NamedSharding(mesh(kind), P()), NamedSharding(mesh(kind), P("devices"))


def in_parts(step: Any, trained: Any, data: Any) -> Any:
    trained, each = jax.lax.scan(step, trained, parts(data, 2))
    return trained, each.mean()


def nnx_in_parts(model: Nnx, optimizer: Any, data: Any) -> jax.Array:
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=(nnx.Carry, 0))
    def body(trained: Any, part: Any) -> Any:
        return trained, nnx_step(How(), *trained, part)

    return body((model, optimizer), parts(data, 2))[1].mean()  # type: ignore[no-any-return]


def built(loop: str, way: str) -> Any:
    """The step, compiled as users compile it."""
    if loop == "nnx":
        return nnx_built(way)
    everywhere, split = places()
    body = {"pytree": pytree_step, "linen": linen_step}[loop]
    step = functools.partial(body, How())
    shared = functools.partial(body, How(together=mean_of_devices))
    sharded: dict[str, Any] = {"in_specs": (P(), P("devices")), "out_specs": P(), "check_vma": False}
    options: dict[str, Any] = {"in_shardings": (everywhere, split), "out_shardings": everywhere}
    builders: dict[str, Callable[[], Any]] = {
        "jit": lambda: jax.jit(step, compiler_options=AS_USERS if loop == "pytree" else None),
        "donated": lambda: jax.jit(step, donate_argnums=0),
        "pmap": lambda: jax.pmap(shared, axis_name="devices"),
        "donated pmap": lambda: jax.pmap(shared, axis_name="devices", donate_argnums=0),
        "shardings": lambda: jax.jit(step, **options),
        "donated shardings": lambda: jax.jit(step, **options, donate_argnums=0),
        "shard_map": lambda: jax.jit(jax.shard_map(shared, mesh=mesh(), **sharded)),
        "explicit": lambda: jax.jit(functools.partial(body, How(losses=losses_of_auto_axes))),
        "scan": lambda: jax.jit(functools.partial(in_parts, step)),
        "checkpoint": lambda: jax.jit(functools.partial(body, How(around=jax.checkpoint))),
    }
    return builders[way]()


def nnx_built(way: str) -> Any:
    everywhere, split = places()
    step = functools.partial(nnx_step, How())
    shared = functools.partial(nnx_step, How(together=mean_of_devices))
    sharded: dict[str, Any] = {"in_specs": (P(), P(), P("devices")), "out_specs": P(), "check_vma": False}
    options: dict[str, Any] = {"in_shardings": (everywhere, everywhere, split), "out_shardings": everywhere}
    builders: dict[str, Callable[[], Any]] = {
        "jit": lambda: nnx.jit(step),
        "donated": lambda: nnx.jit(step, donate_argnums=(0, 1)),
        "pmap": lambda: nnx.pmap(shared, in_axes=(None, None, 0), out_axes=None, axis_name="devices"),
        "shardings": lambda: nnx.jit(step, **options),
        "shard_map": lambda: nnx.jit(nnx.shard_map(shared, mesh=mesh(), **sharded)),
        "explicit": lambda: nnx.jit(functools.partial(nnx_step, How(losses=losses_of_auto_axes))),
        "scan": lambda: nnx.jit(nnx_in_parts),
        "checkpoint": lambda: nnx.jit(functools.partial(nnx_step, How(around=nnx.remat))),
    }
    return builders[way]()


# The runs.


def devices_first(way: str) -> bool:
    return way.endswith("pmap")


def started(loop: str, way: str) -> Any:
    if loop == "nnx":
        return of_nnx()
    trained = pytree() if loop == "pytree" else linen()
    if devices_first(way):
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (DEVICES, *jnp.shape(x))), trained)
    return jax.device_put(trained, places(AxisType.Explicit)[0]) if way == "explicit" else trained


def given(way: str, step: int, classes: int) -> Any:
    data = batch(step, classes)
    if devices_first(way):
        return parts(data, DEVICES)
    return jax.device_put(data, places(AxisType.Explicit)[1]) if way == "explicit" else data


class Run(NamedTuple):
    """What a training leaves: arrays, and the losses that a program would print."""

    state: Any
    losses: list[Any]


def values_of(loop: str, trained: Any) -> Any:
    return tuple(nnx.state(each) for each in trained) if loop == "nnx" else trained


def on_host(loop: str, trained: Any) -> Any:
    return jax.tree.map(np.asarray, jax.tree.leaves(values_of(loop, trained)))


def trained_by(step: Any, loop: str, way: str, classes: int = CLASSES, trained: Any = None) -> Run:
    trained, printed = started(loop, way) if trained is None else trained, []
    for number in range(STEPS):
        data = given(way, number, classes)
        if loop == "nnx":
            loss = step(*trained, data)
        else:
            trained, loss = step(trained, data)
        printed.append(np.asarray(loss))
    return Run(on_host(loop, trained), printed)


def assert_neutral(run: Run, own: Run) -> None:
    assert all(map(np.array_equal, run.state, own.state))
    ulps = np.abs(np.subtract(run.losses, own.losses)) / np.spacing(np.abs(np.asarray(own.losses)))
    assert (ulps <= ULPS).all()


def context(way: str) -> AbstractContextManager[Any]:
    return jax.set_mesh(mesh(AxisType.Explicit)) if way == "explicit" else nullcontext()


class Row(NamedTuple):
    """A loop, a way, and by which route how many calls of one step are read.

    All of it is permitted, if the loss is told of its devices: `optax.ctc_loss` begins its scan with constants, which
    `shard_map` takes only without ``check_vma``, and shardings as types only under `jax.sharding.auto_axes`.
    """

    loop: str
    way: str
    route: str = ""
    calls: int = 1


ROWS = [
    Row("pytree", "jit", "auxiliary"),
    Row("pytree", "donated", "auxiliary"),
    Row("pytree", "pmap", "auxiliary", DEVICES),
    Row("pytree", "shardings", "auxiliary"),
    Row("pytree", "shard_map", "callback", DEVICES),
    Row("pytree", "explicit", "auxiliary"),
    Row("pytree", "scan", "callback", 2),
    Row("pytree", "checkpoint", "callback"),
    Row("linen", "jit", "auxiliary"),
    Row("linen", "donated", "auxiliary"),
    Row("linen", "donated pmap", "auxiliary", DEVICES),
    Row("linen", "donated shardings", "auxiliary"),
    Row("linen", "shard_map", "callback", DEVICES),
    Row("linen", "explicit", "auxiliary"),
    Row("linen", "scan", "callback", 2),
    Row("linen", "checkpoint", "callback"),
    Row("nnx", "jit", "auxiliary"),
    Row("nnx", "donated", "auxiliary"),
    Row("nnx", "pmap", "callback", DEVICES),
    Row("nnx", "shardings", "auxiliary"),
    Row("nnx", "shard_map", "callback", DEVICES),
    Row("nnx", "explicit", "auxiliary"),
    Row("nnx", "scan", "callback", 2),
    Row("nnx", "checkpoint", "callback"),
]
LATER = [row for row in ROWS if row.loop == "pytree" and row.way in ("pmap", "explicit", "shard_map")]


def name_of(row: Row) -> str:
    return f"{row.loop}-{row.way}"


def check(row: Row) -> None:
    """Healthy steps, then one with a label beyond the head."""
    own = trained_by(built(row.loop, row.way), row.loop, row.way)
    guarded = guard_step(built(row.loop, row.way), sinks=())
    assert_neutral(trained_by(guarded, row.loop, row.way), own)
    assert guarded.findings == []
    trained = started(row.loop, row.way)
    before = on_host(row.loop, trained)
    with pytest.raises(CTCVerdictError) as caught:
        trained_by(guarded, row.loop, row.way, CLASSES + 3, trained)
    # A step of the other loops hands its new state back, or raises. Donated arrays are gone; and `nnx.pmap` lets nobody
    # look into it, and has written its result into the model when the callbacks are read.
    if row.loop == "nnx" and row.way not in ("donated", "pmap"):
        assert all(map(np.array_equal, on_host(row.loop, trained), before))
    guarded.close()
    verdict = caught.value.verdict
    assert (verdict.code, verdict.cause, verdict.step) == ("CTC201", "label-beyond-head", STEPS)
    assert (verdict.root.utterances[0].labels or ())[2] == CLASSES + 2
    end = guarded.guard.end_record()
    others = dict.fromkeys(("auxiliary", "callback", "direct"), 0)
    assert end["routes"] == others | {row.route: (STEPS + 1) * row.calls}
    assert (end["steps"], end["calls"]) == (STEPS, (STEPS + 1) * row.calls)


def check_later(row: Row) -> None:
    """With ``log`` a broken step is judged when its readings are there, each device with its own utterances' names."""
    names = [f"clip {number}" for number in range(BATCH)]
    guarded = guard_step(built(row.loop, row.way), sinks=(), on_error="log", on_warning="log")
    trained_by(guarded, row.loop, row.way)
    guarded.flush()
    assert guarded.findings == []
    guarded.batch(names)
    trained_by(guarded, row.loop, row.way, CLASSES + 3)
    guarded.close()
    found = [finding for finding in guarded.findings if finding.code == "CTC201"]
    assert {finding.step for finding in found} == set(range(STEPS, 2 * STEPS))
    assert found[0].utterances[0].id == "clip 5"
    assert guarded.guard.end_record()["routes"][row.route] == 2 * STEPS * row.calls


if HERE:

    @pytest.mark.parametrize("row", ROWS, ids=name_of)
    def test_neutral_and_silent_when_healthy_stopped_when_broken(row: Row) -> None:
        assert len(jax.devices()) == DEVICES
        with context(row.way):
            check(row)

    @pytest.mark.parametrize("row", LATER, ids=name_of)
    def test_with_log_it_is_judged_later_and_goes_on(row: Row) -> None:
        with context(row.way):
            check_later(row)

    def test_an_observed_loss_where_shardings_are_types() -> None:
        def step(logits: jax.Array, data: Any) -> jax.Array:
            lengths = data["label_paddings"].shape[1] - data["label_paddings"].sum(1).astype(int)
            frames = FRAMES - data["frame_paddings"].sum(1).astype(int)
            observe(logits=logits, targets=data["labels"], input_lengths=frames, target_lengths=lengths, blank=0)
            return logits * 2

        guarded = guard_step(jax.jit(step), sinks=())
        with context("explicit"):
            logits = jax.device_put(np.zeros((BATCH, FRAMES, CLASSES), np.float32), places(AxisType.Explicit)[1])
            guarded(logits, given("explicit", 0, CLASSES))
            assert guarded.findings == []
            with pytest.raises(CTCVerdictError, match="CTC201"):
                guarded(logits, given("explicit", 0, CLASSES + 3))
        guarded.close()

else:

    @pytest.mark.timeout(600)
    def test_on_four_devices() -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(DEVICES)}
        root = Path(__file__).parents[2]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=root)
        assert done.returncode == 0, done.stdout
        assert f"{len(ROWS) + len(LATER) + 1} passed" in done.stdout
