"""What guarding a JAX step costs: guarded and unguarded steps in turns, in one process.

    python benchmarks/overhead/jax_step.py --pairs 400 --json benchmarks/overhead/jax_step.json

Every round times one step of each arm, in an order of its own; the figure of an arm is the median over rounds of its
time divided by the unguarded step's of the same round, with the quartiles and a 95% bootstrap interval of the median.
"again" is the same unguarded step built a second time: what it differs by is noise. XLA works on one thread, for with
more the neighbours on the machine are measured too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"  # read when JAX starts

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ctcguard import guard_step
from ctcguard_integrations import jax_seam

BATCH, FRAMES, FEATURES, LABELS, CLASSES = 16, 300, 80, 40, 64
OPTIMIZER = optax.adam(1e-3)


def batch() -> dict[str, jax.Array]:
    random = np.random.default_rng(0)
    frames = random.integers(FRAMES // 2, FRAMES + 1, (BATCH, 1))
    return {
        "features": jnp.asarray(random.normal(size=(BATCH, FRAMES, FEATURES)), jnp.float32),
        "frame_paddings": jnp.asarray(np.arange(FRAMES)[None] >= frames, jnp.float32),
        "labels": jnp.asarray(random.integers(1, CLASSES, (BATCH, LABELS)), jnp.int32),
        "label_paddings": jnp.zeros((BATCH, LABELS), jnp.float32),
    }


def make_step(hidden: int) -> tuple[Callable[..., Any], Any]:
    sizes = [FEATURES, hidden, hidden, CLASSES]
    random = np.random.default_rng(1)
    weights = [jnp.asarray(random.normal(size=s) / s[0] ** 0.5, jnp.float32) for s in pairwise(sizes)]

    def loss(weights: Any, data: Any) -> jax.Array:
        x = data["features"]
        for matrix in weights[:-1]:
            x = jax.nn.relu(x @ matrix)
        arguments = (data["frame_paddings"], data["labels"], data["label_paddings"])
        return optax.ctc_loss(x @ weights[-1], *arguments).mean()

    def step(weights: Any, state: Any, data: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(weights, data)
        updates, state = OPTIMIZER.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, value

    return step, weights


def arms(step: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    def again(*args: Any) -> Any:
        return step(*args)

    settings: dict[str, Any] = {"sinks": ()}
    later = settings | {"on_error": "log", "on_warning": "log"}
    return {
        "unguarded": jax.jit(step),
        "again": jax.jit(again),
        "auxiliary, raise": guard_step(jax.jit(step), **settings),
        "auxiliary, log": guard_step(jax.jit(step), **later),
        "callback, raise": guard_step(by_callback(step), **settings),
        "callback, log": guard_step(by_callback(step), **later),
    }


def by_callback(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that cannot be rebuilt: its loss is inside another function's jit."""
    inner = jax.jit(step)
    return lambda *args: inner(*args)  # noqa: PLW0108 - not a jit object


def measure(steps: dict[str, Callable[..., Any]], weights: Any, rounds: int) -> dict[str, list[float]]:
    data, state = batch(), OPTIMIZER.init(weights)
    for step in steps.values():
        for _ in range(5):
            jax.block_until_ready(step(weights, state, data))
    names, times = list(steps), {name: [] for name in steps}
    order = np.random.default_rng(0)
    for _ in range(rounds):
        for name in order.permutation(names):
            started = time.perf_counter()
            jax.block_until_ready(steps[name](weights, state, data))
            times[name].append(time.perf_counter() - started)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    base = np.asarray(times["unguarded"])
    ratios = {name: np.asarray(values) / base for name, values in times.items()}
    random = np.random.default_rng(0)
    picks = random.integers(0, len(base), (2000, len(base)))
    intervals = {
        name: np.quantile(np.median(values[picks], axis=1), (0.025, 0.975)).round(4).tolist()
        for name, values in ratios.items()
    }
    quartiles = {name: np.quantile(values, (0.25, 0.5, 0.75)).round(4).tolist() for name, values in ratios.items()}
    return {
        "step_ms": round(float(np.median(base)) * 1e3, 2),
        "rounds": len(base),
        "ratio_quartiles": quartiles,
        "median_interval": intervals,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "versions": {"jax": jax.__version__, "optax": optax.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200, help="rounds: one step of each arm in every round")
    parser.add_argument("--hidden", type=int, default=256, help="width of the model: chooses the time of a step")
    parser.add_argument("--json", type=Path, default=None, help="write the figures here too")
    options = parser.parse_args()
    step, weights = make_step(options.hidden)
    steps = arms(step)
    result = summary(measure(steps, weights, options.pairs))
    print(f"unguarded step: {result['step_ms']} ms (median of {result['rounds']})")
    for name, (low, median, high) in result["ratio_quartiles"].items():
        least, most = result["median_interval"][name]
        print(f"{name:<20} x{median:.3f}   (95% {least:.3f} to {most:.3f}; quartiles {low:.3f} to {high:.3f})")
    for guarded in list(steps.values()):
        if hasattr(guarded, "close"):
            guarded.close()
    assert jax_seam.innermost() == (None, None)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
