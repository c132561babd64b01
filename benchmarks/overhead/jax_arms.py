"""A Flax step, compiled, with one tool each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental import checkify

from benchmarks.overhead.ratios import Pair
from benchmarks.overhead.torch_arms import GUARDS, arm, own_time

BATCH, FRAMES, FEATURES, LABELS, CLASSES, HIDDEN = 32, 250, 80, 40, 32, 96
"""As the CNN-BiLSTM of `benchmarks.overhead.torch_loops`: both tables are of the same training."""


def batch() -> dict[str, jax.Array]:
    """Utterances of up to 5 s, features every 10 ms, of which the model makes 125 to 250 frames."""
    random = np.random.default_rng(0)
    frames, counts = random.integers(FRAMES // 2, FRAMES + 1, (BATCH, 1)), random.integers(15, LABELS + 1, (BATCH, 1))
    frames[0] = FRAMES
    labels, padded = random.integers(1, CLASSES, (BATCH, LABELS)), np.arange(LABELS)[None] >= counts
    return {
        "features": jnp.asarray(random.normal(size=(BATCH, 2 * FRAMES, FEATURES)), jnp.float32),
        "frame_paddings": jnp.asarray(np.arange(FRAMES)[None] >= frames, jnp.float32),
        "labels": jnp.asarray(np.where(padded, 0, labels), jnp.int32),
        "label_paddings": jnp.asarray(padded, jnp.float32),
    }


class Model(nnx.Module):
    """Two convolutions that halve the time axis, a bidirectional LSTM, a head."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.Conv(FEATURES, HIDDEN, 5, strides=2, rngs=rngs)
        self.second = nnx.Conv(HIDDEN, HIDDEN, 5, rngs=rngs)
        cells = (nnx.OptimizedLSTMCell(HIDDEN, HIDDEN, rngs=rngs) for _ in range(2))
        self.lstm = nnx.Bidirectional(*(nnx.RNN(cell, rngs=False) for cell in cells), rngs=False)
        self.head = nnx.Linear(2 * HIDDEN, CLASSES, rngs=rngs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """Logits, (batch, frames, classes)."""
        hidden = nnx.relu(self.second(nnx.relu(self.first(features))))
        logits: jax.Array = self.head(self.lstm(hidden, rngs=nnx.Rngs(0)))  # which start at zero whatever these are
        return logits


def parts() -> tuple[Callable[..., Any], Any, Any]:
    """A new step, parameters and optimizer state; functional, so that every tool can have it."""
    definition, weights = nnx.split(Model())
    optimizer = optax.adam(1e-3)

    def loss(weights: Any, data: Any) -> jax.Array:
        logits = nnx.merge(definition, weights)(data["features"])
        return optax.ctc_loss(logits, data["frame_paddings"], data["labels"], data["label_paddings"]).mean()

    def step(weights: Any, state: Any, data: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(weights, data)
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, value

    return step, weights, optimizer.init(weights)


class Training:
    """A training of which both arms take steps in turns: what they differ by is the step, not where its weights are."""

    def __init__(self) -> None:
        self.step, self._weights, self._state = parts()
        self._data = batch()

    def by(self, step: Callable[..., Any]) -> Callable[[], None]:
        """A step of it by that function; each call waits for its loss, as a loop that logs it does."""

        def take() -> None:
            self._weights, self._state, loss = step(self._weights, self._state, self._data)
            loss.block_until_ready()

        return take


def checked(step: Callable[..., Any]) -> Callable[..., Any]:
    """All checks of checkify, thrown after each step as its documentation has it."""
    compiled = jax.jit(checkify.checkify(step, errors=checkify.all_checks))

    def call(*args: Any) -> Any:
        error, result = compiled(*args)
        error.throw()
        return result

    return call


def by_callback(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that cannot be rebuilt, so that readings leave by callback: its loss is inside another function's jit."""
    inner = jax.jit(step)
    return lambda *args: inner(*args)  # noqa: PLW0108 - not a jit object


def called_back(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step with a callback that does nothing: what any of them costs a program, without a guard."""

    def with_callback(*args: Any) -> Any:
        jax.debug.callback(lambda: None)
        return step(*args)

    return jax.jit(with_callback)


def guarded(compiled: Callable[..., Any], settings: dict[str, Any]) -> Pair:
    """The compiled step without and with a guard."""
    from ctcguard import guard_step

    training = Training()
    step = guard_step(compiled(training.step), sinks=(), **settings)
    clock = own_time(step.guard.clock)
    return arm(training.by(jax.jit(training.step))), arm(training.by(step), lambda: clock)


def in_flax() -> Iterator[tuple[str, Callable[[], Pair]]]:
    """The pairs of the Flax step."""

    def pair(
        made: Callable[..., Any] = jax.jit, during: Callable[[], AbstractContextManager[Any]] = nullcontext
    ) -> Pair:
        training = Training()
        return arm(training.by(jax.jit(training.step))), arm(training.by(made(training.step)), during)

    yield "unguarded again", pair
    for name, settings in GUARDS.items():
        yield name, partial(guarded, jax.jit, settings)
    yield "ctcguard, on_error=log", partial(guarded, jax.jit, {"on_error": "log", "on_warning": "log"})
    yield "ctcguard, by callback", partial(guarded, by_callback, {})
    yield "a callback of JAX that does nothing", partial(pair, called_back)
    yield "jax_debug_nans", partial(pair, during=lambda: jax.debug_nans(True))
    yield "checkify", partial(pair, checked)
