"""What the pages say about optax comes out of optax, and out of a guarded step."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctcguard import guard_step
from ctcguard.baselines import baselines
from ctcguard.rules import rule_named
from tests.reference.ctc import repeats
from tests.rules.dynamics.runs import PATIENCE, roots

CLASSES = 5
COUNTS = {"blank-collapse": 150, "single-symbol-collapse": 150, "no-progress": 40, "loss-spike": 30}
QUICK: dict[str, Any] = {
    name: {**fields, "grace_steps": COUNTS[name], "calls": 32} for name, fields in PATIENCE.items()
}


class Loop:
    """Logits trained by optax, each frame its own or one for all; guarded."""

    def __init__(self, labels: list[int], frames: int, same: bool, lr: float = 0.1) -> None:
        self.logits = jnp.zeros((1, 1 if same else frames, CLASSES))
        self.lr, shape = lr, (1, frames, CLASSES)
        self.state = optax.adam(1.0).init(self.logits)
        fixed = jnp.zeros((1, frames)), jnp.asarray([labels]), jnp.zeros((1, len(labels)))

        @jax.jit
        def step(logits: Any, state: Any, lr: Any) -> Any:
            def loss(x: Any) -> Any:
                return optax.ctc_loss(jnp.broadcast_to(x, shape), *fixed)[0]

            value, gradient = jax.value_and_grad(loss)(logits)
            change, state = optax.adam(1.0).update(gradient, state)
            return logits + lr * change, state, value

        self.step = guard_step(
            step, sinks=(), run_dir="run", on_error="log", on_warning="log", budget=None, thresholds=QUICK
        )

    def run(self, count: int) -> list[float]:
        """The losses before each update."""
        losses = []
        for _ in range(count):
            self.logits, self.state, loss = self.step(self.logits, self.state, self.lr)
            losses.append(float(loss))
        return losses

    def roots(self) -> list[tuple[str, str]]:
        """Closes the guard: what it announced."""
        self.step.close()
        return roots(self.step.guard)


def says(code: str, *texts: str) -> None:
    """The page has each of these word for word."""
    page = inspect.cleandoc(rule_named(code).__doc__ or "")
    section = " ".join(page.partition("## In optax\n")[2].partition("\n## ")[0].split())
    for text in texts:
        assert text in section, text


def closed_forms(labels: list[int], frames: int) -> tuple[float, float]:
    lengths = np.asarray([[frames], [len(labels)], [repeats(labels)]])
    uniform, constant = baselines(lengths, CLASSES, max(labels))
    return float(uniform[0]), float(constant[0])


def test_all_blank() -> None:
    loop = Loop([1, 2, 3], 10, same=True)
    losses = loop.run(400)
    assert loop.logits.argmax() == 0
    uniform, constant = closed_forms([1, 2, 3], 10)
    assert losses[0] == pytest.approx(uniform)
    assert losses[-1] == pytest.approx(constant, rel=0.1)
    says("CTC701", f"{losses[-1]:.2f} nats (uniform ones {losses[0]:.2f})", "`[1, 2, 3]` in 10 frames with 5 classes")
    assert loop.roots() == [("CTC701", "constant-output")]


def test_always_the_same_symbol() -> None:
    """Half of the labels and more are class 1."""
    labels = [1, 2, 1, 3, 1]
    loop = Loop(labels, 6, same=True)
    losses = loop.run(300)
    assert loop.logits.argmax() == 1
    says("CTC702", f"{losses[-1]:.2f} nats, and class 1 wins every frame", f"`{labels}` in 6 frames with 5 classes")
    assert loop.roots() == [("CTC702", "few-frames")]


def test_no_progress() -> None:
    loop = Loop([1, 2, 3], 10, same=False, lr=0.0)
    losses = loop.run(80)
    uniform, _ = closed_forms([1, 2, 3], 10)
    assert losses == pytest.approx([uniform] * 80)
    assert loop.roots() == [("CTC703", "weights-at-rest")]
    right = Loop([1, 2, 3], 10, same=False)
    first, second = right.run(2)
    says("CTC703", f"{first:.2f} nats for `[1, 2, 3]`", f"the loss is {1 - second / first:.0%} lower after the first")


def test_a_jump() -> None:
    loop = Loop([1, 2, 3], 10, same=False)
    loop.run(400)
    learned = loop.run(40)
    says("CTC704", f"at {learned[0]:.3f} nats after 400 updates")
    loop.logits, loop.lr = loop.logits[:, ::-1], 0.0  # the weights of another order, and they stay
    loop.run(64)
    assert loop.roots() == [("CTC704", "diverged")]


def test_a_healthy_run() -> None:
    loop = Loop([1, 2, 3], 10, same=False)
    loop.run(300)
    assert loop.roots() == []
