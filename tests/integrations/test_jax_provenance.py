"""How logits were made, read off a program while JAX traces it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

from ctcguard import guard_step
from ctcguard.provenance import UNKNOWN, Provenance
from ctcguard_integrations.jax_provenance import provenance

WEIGHTS, FEATURES = jnp.ones((8, 5)), jnp.ones((4, 20, 8))
Make = Callable[[jax.Array], jax.Array]


def seen(make: Make, around: Callable[[Any], Any] = jax.grad) -> Provenance:
    """What is read while a jitted gradient of ``make`` is traced."""
    found: list[Provenance] = []

    def loss(weights: jax.Array) -> jax.Array:
        logits = make(weights)
        found.append(provenance(logits))
        return logits.astype(jnp.float32).sum()

    jax.jit(around(loss)).lower(WEIGHTS)
    return found[0]


def head(weights: jax.Array) -> jax.Array:
    return FEATURES @ weights


def by_hand(weights: jax.Array) -> jax.Array:
    logits = head(weights)
    return logits - jax.nn.logsumexp(logits, -1, keepdims=True)


def of_two_values(weights: jax.Array) -> jax.Array:
    return head(weights) - jax.nn.logsumexp(head(weights), -1, keepdims=True)


def own_softmax(weights: jax.Array) -> jax.Array:
    powers = jnp.exp(head(weights))
    return powers / powers.sum(-1, keepdims=True)


CHAINS: dict[str, tuple[Make, str]] = {
    "right": (head, "linear"),
    "with a bias": (lambda w: head(w) + w[0], "linear → add"),
    "an activation": (lambda w: jax.nn.relu(head(w)), "linear → relu"),
    "a softmax": (lambda w: jax.nn.softmax(head(w)), "linear → softmax axis 2"),
    "a softmax of one's own": (own_softmax, "linear → softmax axis 2"),
    "a log-softmax": (lambda w: jax.nn.log_softmax(head(w)), "linear → log_softmax axis 2"),
    "a log-softmax of one's own": (by_hand, "linear → log_softmax axis 2"),
    "over time": (lambda w: jax.nn.log_softmax(head(w), 1), "linear → log_softmax axis 1"),
    "a temperature": (lambda w: jax.nn.log_softmax(head(w)) / 2, "linear → log_softmax axis 2 → divide"),
    "half precision": (
        lambda w: jax.nn.log_softmax(head(w).astype(jnp.bfloat16)).astype(jnp.float32),
        "linear → cast → bfloat16 → log_softmax axis 2 → cast → float32",
    ),
    "detached": (lambda w: jax.lax.stop_gradient(head(w)), "linear → detach"),
    "reshaped": (lambda w: head(w).transpose(1, 0, 2).reshape(4, 20, 5), "linear → permute → view → (4, 20, 5)"),
}


@pytest.mark.parametrize("around", [jax.grad, jax.value_and_grad, lambda f: f], ids=["grad", "value_and_grad", "none"])
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain(name: str, around: Callable[[Any], Any]) -> None:
    make, chain = CHAINS[name]
    found = seen(make, around)
    assert (str(found), found.reaches_head) == (chain, True)


def test_of_two_values_it_is_none() -> None:
    """``x - logsumexp(y)`` is no softmax of x unless y is x."""
    assert seen(of_two_values).softmax() is None


def test_the_class_axis_is_followed() -> None:
    turned = seen(lambda w: jnp.swapaxes(jax.nn.softmax(jnp.swapaxes(head(w), 1, 2), -1), 1, 2)).softmax()
    straight = seen(lambda w: jax.nn.softmax(head(w).transpose(1, 0, 2), -1).transpose(1, 0, 2)).softmax()
    assert turned is not None
    assert straight is not None
    assert (turned.axis, turned.class_axis) == (2, 1)
    assert (straight.axis, straight.class_axis) == (2, 2)


@pytest.mark.parametrize("around", [jax.checkpoint, lambda f: jax.vmap(lambda x: f(x))])
def test_inside_other_transformations(around: Callable[[Any], Any]) -> None:
    found: list[str] = []

    def loss(features: jax.Array, weights: jax.Array) -> jax.Array:
        logits = jax.nn.softmax(features @ weights)
        found.append(str(provenance(logits)))
        return logits.sum()

    jax.jit(jax.grad(lambda w: around(lambda x: loss(x, w))(FEATURES).sum())).lower(WEIGHTS)
    assert found[0] == "linear → softmax axis 2"


def test_nnx() -> None:
    found: list[str] = []
    model = nnx.Linear(8, 5, rngs=nnx.Rngs(0))

    @nnx.jit
    def step(model: nnx.Linear) -> Any:
        def loss(model: nnx.Linear) -> jax.Array:
            logits = jax.nn.softmax(model(FEATURES))
            found.append(str(provenance(logits)))
            return logits.sum()

        return nnx.value_and_grad(loss)(model)

    step(model)
    assert found[0] == "linear → add → softmax axis 2"


@pytest.mark.parametrize("value", [FEATURES, None, 3.0])
def test_outside_of_a_trace_nothing_is_known(value: Any) -> None:
    assert provenance(value) == UNKNOWN


def test_a_jax_without_the_attributes_is_no_fault() -> None:
    found: list[Provenance] = []

    class Bare:
        """A traced value of a JAX that remembers nothing."""

        aval = None

    jax.jit(lambda x: (found.append(provenance(Bare())), x)[1]).lower(WEIGHTS)
    assert found == [UNKNOWN]


def test_it_is_the_evidence_of_a_verdict() -> None:
    @jax.jit
    def step(weights: jax.Array) -> jax.Array:
        logits = jax.nn.softmax(FEATURES @ weights)
        return optax.ctc_loss(logits, jnp.zeros((4, 20)), jnp.ones((4, 2), int), jnp.zeros((4, 2))).mean()

    guarded = guard_step(step, sinks=(), on_error="log")
    guarded(WEIGHTS)
    guarded.close()
    root = guarded.verdicts[0].root
    assert root.code == "CTC404"
    assert "made by linear → softmax axis 2" in root.evidence


def test_utterances_are_named() -> None:
    @jax.jit
    def step(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.ctc_loss(logits, jnp.zeros((2, 9)), labels, jnp.zeros((2, 2))).mean()

    guarded = guard_step(step, sinks=(), on_error="log")
    for number, labels in enumerate(([[1, 2], [3, 1]], [[1, 2], [3, 99]], [[1, 2], [3, 1]])):
        guarded.batch([f"{number}-a", f"{number}-b"])
        guarded(jnp.zeros((2, 9, 5)), jnp.asarray(labels))
    guarded.close()
    (found,) = [finding for finding in guarded.findings if finding.code == "CTC201"]
    assert (found.step, [utterance.id for utterance in found.utterances]) == (1, ["1-b"])
