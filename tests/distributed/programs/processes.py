"""Two processes of JAX with two devices each, and global arrays over all four: healthy, alerted, stopped, then ended.

Arguments: the number of this process and the port of the coordinator.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ctcguard import CTCStop, guard_step

HERE, PORT = int(sys.argv[1]), sys.argv[2]
CLASSES, FRAMES, LABELS, STEPS = 12, 30, 5, 4
ADAM = optax.adam(1e-2)

jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{PORT}", 2, HERE)
MESH = jax.make_mesh((jax.device_count(),), ("devices",), axis_types=(AxisType.Auto,))


def batch(step: int, bad_at: int) -> dict[str, jax.Array]:
    """Four utterances of each process; at the bad step, the third one of process 1 has a label beyond the head."""
    random = np.random.default_rng([step, HERE])
    labels = random.integers(1, CLASSES, (4, LABELS)).astype(np.int32)
    if HERE == 1 and step == bad_at:
        labels[2, 1] = CLASSES + 2
    own = {
        "features": random.normal(size=(4, FRAMES, 6)).astype(np.float32),
        "frame_paddings": (np.arange(FRAMES)[None] >= random.integers(20, FRAMES + 1, (4, 1))).astype(np.float32),
        "labels": labels,
        "label_paddings": np.zeros((4, LABELS), np.float32),
    }
    split = NamedSharding(MESH, P("devices"))
    return {name: jax.make_array_from_process_local_data(split, array) for name, array in own.items()}


def loss_of(weights: jax.Array, data: Any) -> jax.Array:
    logits = jnp.tanh(data["features"]) @ weights
    return optax.ctc_loss(logits, data["frame_paddings"], data["labels"], data["label_paddings"]).mean()


@jax.jit
def step(weights: Any, state: Any, data: Any) -> Any:
    gradient = jax.grad(loss_of)(weights, data)
    updates, state = ADAM.update(gradient, state, weights)
    return optax.apply_updates(weights, updates), state


def run(step: Any, bad_at: int = -1) -> list[Any]:
    start = np.random.default_rng(0).normal(size=(6, CLASSES)).astype(np.float32)
    weights = jax.device_put(start, NamedSharding(MESH, P()))
    state = jax.jit(ADAM.init)(weights)
    for number in range(STEPS):
        weights, state = step(weights, state, batch(number, bad_at))
    return np.asarray(weights).tolist()  # type: ignore[no-any-return]


result: dict[str, Any] = {"devices": jax.device_count(), "processes": jax.process_count()}
guarded = guard_step(step, on_error="alert", run_dir="alert")
result["equal"] = run(step) == run(guarded)
guarded.flush()
result["healthy"] = [finding.code for finding in guarded.findings]
result["calls"] = guarded.guard.calls
run(guarded, bad_at=1)
guarded.close()
result["alert"] = [[item.model_dump() for item in finding.utterances] for finding in guarded.findings]
stopping = guard_step(step, run_dir="stop", on_error="stop")
try:
    run(stopping, bad_at=1)
except CTCStop as stop:
    result["stop"] = str(stop)
stopping.close()
Path(f"result-{HERE}.json").write_text(json.dumps(result))
run(guard_step(step, run_dir="end"), bad_at=1)
print("this is not reached")
