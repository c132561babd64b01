"""What the rules' pages say about optax comes out of optax: losses, the curve, code and cause, and what is not seen."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctcguard import CTCVerdictError, guard_step, observe
from ctcguard.finding import Severity
from ctcguard.rules import rule_named

OPTIMIZER = optax.adam(0.1)
UPDATES = 400
RIGHT = [[1, 2, 3]]
Make = Callable[[Any], Any]
Found = set[tuple[str, str]]


def as_is(x: Any) -> Any:
    return x


def over_time(x: Any) -> Any:
    return jax.nn.log_softmax(x, axis=1)


def arrays(labels: Any, logits: Any, frame_paddings: Any, label_paddings: Any) -> tuple[jax.Array, ...]:
    """The example of the pages: logits of zeros, 10 frames, 5 classes, no padding; unless said otherwise."""
    values = jnp.zeros(logits) if isinstance(logits, tuple) else jnp.asarray(logits)
    frames = jnp.zeros(values.shape[:2]) if frame_paddings is None else jnp.asarray(frame_paddings, float)
    ends = jnp.zeros(np.shape(labels)) if label_paddings is None else jnp.asarray(label_paddings, float)
    return values, frames, jnp.asarray(labels), ends


@functools.partial(jax.jit, static_argnames=("make", "blank"))
def trained(x: Any, frames: Any, labels: Any, ends: Any, make: Make, blank: int) -> Any:
    """Losses before each update and after the last, (updates + 1, batch), and the largest gradient of each."""

    def loss(x: Any) -> Any:
        each = optax.ctc_loss(make(x), frames, labels, ends, blank_id=blank)
        return each.mean(), each

    def update(carry: Any, _: Any) -> Any:
        x, state = carry
        (_, each), gradient = jax.value_and_grad(loss, has_aux=True)(x)
        change, state = OPTIMIZER.update(gradient, state)
        return (optax.apply_updates(x, change), state), (each, jnp.abs(gradient).max())

    return jax.lax.scan(update, (x, OPTIMIZER.init(x)), None, UPDATES + 1)[1]


def curve(
    labels: Any = RIGHT,
    logits: Any = (1, 10, 5),
    frame_paddings: Any = None,
    label_paddings: Any = None,
    make: Make = as_is,
    blank: int = 0,
) -> np.ndarray:
    """The losses of `trained`."""
    given = arrays(labels, logits, frame_paddings, label_paddings)
    return np.asarray(trained(*given, make=make, blank=blank)[0])


def found(
    labels: Any = RIGHT,
    logits: Any = (1, 10, 5),
    frame_paddings: Any = None,
    label_paddings: Any = None,
    make: Make = as_is,
    blank: int = 0,
    loss: Callable[..., Any] = optax.ctc_loss,
    **settings: Any,
) -> Found:
    """Errors and warnings of one jitted call."""

    @jax.jit
    def step(x: Any, frames: Any, labels: Any, ends: Any) -> Any:
        return loss(make(x), frames, labels, ends, blank_id=blank)

    guarded = guard_step(step, **({"sinks": (), "on_error": "log", "on_warning": "log"} | settings))
    try:
        guarded(*arrays(labels, logits, frame_paddings, label_paddings))
    finally:
        guarded.close()
    return serious(guarded)


def serious(guarded: Any) -> Found:
    return {(f.code, f.cause) for f in guarded.findings if f.severity is not Severity.INFORMATION}


def head(features: Any, frame_paddings: Any, make: Make = as_is) -> tuple[np.ndarray, np.ndarray, Found, Found]:
    """A linear head of zeros: losses, which weights one update leaves NaN, what is found then, and one call later."""

    @jax.jit
    def step(weights: Any) -> Any:
        def loss(w: Any) -> Any:
            each = optax.ctc_loss(make(features @ w), frame_paddings, jnp.asarray(RIGHT * 2), jnp.zeros((2, 3)))
            return each.mean(), each

        (_, each), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
        return weights - OPTIMIZER.update(gradient, OPTIMIZER.init(weights))[0], each

    guarded = guard_step(step, sinks=(), on_error="log", on_warning="log")
    weights, losses = guarded(jnp.zeros((8, 5)))
    guarded.flush()
    at_once = serious(guarded)
    guarded(weights)
    guarded.close()
    return np.asarray(losses), np.isnan(weights), at_once, serious(guarded) - at_once


def features(*places: Any) -> jax.Array:
    """Of two utterances, NaN in these places."""
    values = np.random.default_rng(0).normal(size=(2, 10, 8)).astype(np.float32)
    for place in places:
        values[place] = np.nan
    return jnp.asarray(values)


PADDED = (1, slice(8, 10))
ENDS = jnp.asarray([[0.0] * 10, [0.0] * 8 + [1.0] * 2])


def zero_padding(x: Any) -> Any:
    return jnp.where(ENDS[..., None] > 0, 0, x)


def says(code: str, *texts: str) -> None:
    """The page has each of these word for word, a number not as a part of a longer one."""
    page = inspect.cleandoc(rule_named(code).__doc__ or "")
    section = " ".join(page.partition("## In optax\n")[2].partition("\n## ")[0].split())
    for text in texts:
        assert re.search(rf"(?<![\w.,-]){re.escape(text)}(?!\d|[.,]\d)", section), text


def nats(losses: Any, digits: int = 2) -> list[str]:
    return [f"{float(loss):,.{digits}f}" for loss in np.ravel(losses)]


def after(losses: np.ndarray) -> str:
    """When it is negative."""
    return f"after {np.flatnonzero(losses[:, 0] < 0)[0]}"


def test_the_example_is_healthy() -> None:
    assert found() == set()
    assert 0 < curve()[-1, 0] < 0.01 < curve()[0, 0]


def test_ctc101() -> None:
    wide, narrow = curve([[1, 2, 5]], (1, 10, 6)), curve([[1, 2, 5]])
    says("CTC101", *nats(wide[0]), *nats(narrow[0]), after(narrow))
    with pytest.raises(CTCVerdictError) as caught:
        found(vocabulary=[*"?abcde"], on_error="raise")
    root = caught.value.verdict.root
    assert (root.code, root.cause, root.phase) == ("CTC101", "missing-classes", "setup")


def test_ctc102() -> None:
    right, wrong = curve([[1, 2, 0]], blank=4), curve([[1, 2, 0]])
    says("CTC102", *nats(right[0]), *nats(wrong[0]), after(wrong))
    assert (right > 0).all()
    with pytest.raises(CTCVerdictError) as caught:
        found([[1, 2, 0]], vocabulary=[*"abcd", "<blank>"], on_error="raise")
    root = caught.value.verdict.root
    assert (root.code, root.cause, root.phase) == ("CTC102", "other-blank", "setup")


@pytest.mark.parametrize(("blank", "cause"), [(-1, "negative"), (5, "no-class-for-blank"), (9, "blank-beyond-head")])
def test_ctc103(blank: int, cause: str) -> None:
    with pytest.raises(TypeError) as raised:
        found(blank=blank)
    says("CTC103", f"TypeError: {str(raised.value).removesuffix('.')}")
    with pytest.raises(CTCVerdictError) as caught:
        found(blank=blank, on_error="raise")
    assert (caught.value.verdict.code, caught.value.verdict.cause) == ("CTC103", cause)


def test_ctc103_from_the_end() -> None:
    assert (curve([[1, 2, 4]], blank=-2)[0] == curve([[1, 2, 4]], blank=3)[0]).all()
    assert found([[1, 2, 4]], blank=-2) == set()
    assert found([[1, 2, 3]], blank=-2) == {("CTC203", "padding-counted")}


def test_ctc201() -> None:
    one, three = curve([[1, 2, 5]]), curve([[5, 6, 7]])
    says("CTC201", *nats(curve()[0]), *nats(one[0]), *nats(three[0]), *nats(one[-1]), after(one))
    assert found([[1, 2, 5]]) == {("CTC201", "no-class-for-blank")}


def test_ctc202() -> None:
    labels = np.asarray([[1, 2, -100]])
    wrong, right = curve(labels), curve(labels, label_paddings=labels < 0)
    says("CTC202", *nats(wrong[0]), *nats(right[0]), after(wrong))
    assert nats(right[0]) == nats(curve([[1, 2]])[0])
    assert found(labels, label_paddings=labels < 0) == set()
    assert found(labels) == {("CTC202", "ignore-index")}


def test_ctc203() -> None:
    inside, tail = curve([[1, 0, 3]]), curve([[1, 2, 0, 0]])
    says("CTC203", *nats(inside[0]), *nats(inside[-1]), after(inside), after(tail))
    assert nats(inside[0]) == nats(curve()[0])
    assert found([[1, 0, 3]]) == {("CTC203", "blank-index")}
    assert found([[1, 2, 0, 0]]) == {("CTC203", "padding-counted")}


def test_ctc204() -> None:
    says("CTC204", *nats(curve(label_paddings=[[1, 1, 1]])[0]), *nats(curve()[0]))
    four: dict[str, Any] = {"logits": (4, 10, 5), "label_paddings": np.ones((4, 3))}
    assert found(np.zeros((4, 3), int), **four) == set()  # information
    many: dict[str, Any] = {"logits": (64, 10, 5), "label_paddings": np.ones((64, 3))}
    assert found(np.zeros((64, 3), int), **many) == {("CTC204", "all-empty")}
    assert ("CTC303", "all-padding") in found(RIGHT * 4, **four)


def test_ctc301() -> None:
    right, wrong = (trained(*arrays(labels, (1, 3, 5), None, None), as_is, 0) for labels in (RIGHT, [[1, 1, 2]]))
    says("CTC301", *nats(right[0][0]), *nats(wrong[0][0], 1), *nats(wrong[0][-1], 1))
    says("CTC301", *nats(right[1][0]), *nats(wrong[1][0]))
    assert found([[1, 1, 2]], (1, 3, 5)) == {("CTC301", "repeats"), ("CTC503", "large-constant")}


def test_ctc302() -> None:
    mask = np.arange(20)[None] < np.asarray([[14], [12]])
    right, wrong = (curve(RIGHT * 2, (2, 20, 5), paddings) for paddings in (~mask, mask))
    says("CTC302", *nats(right[0], 1), *nats(wrong[0], 1), *nats(wrong[-1], 3))
    assert found(RIGHT * 2, (2, 20, 5), ~mask) == set()
    assert found(RIGHT * 2, (2, 20, 5), mask) == {("CTC302", "inverted-paddings")}
    with pytest.raises(ValueError, match="Shape mismatch"):
        curve(frame_paddings=np.zeros((1, 40)))


def test_ctc303() -> None:
    labels, ends = [[1, 2, 3], [1, 2, 0]], np.asarray([[0, 0, 0], [0, 0, 1]])
    right, wrong = (curve(labels, (2, 10, 5), None, paddings) for paddings in (ends, 1 - ends))
    says("CTC303", *nats(right[0]), *nats(wrong[0]), *nats(wrong[-1]))
    assert found(labels, (2, 10, 5), None, 1 - ends) == {("CTC303", "inverted-paddings")}
    with pytest.raises(ValueError, match="mismatch"):
        curve(label_paddings=np.zeros((1, 4)))


def paddings_of(lengths: Any, frames: int) -> np.ndarray:
    return np.arange(frames)[None] >= np.asarray(lengths)[:, None]


def test_ctc304() -> None:
    full, quarter = curve(logits=(1, 40, 5)), curve(logits=(1, 40, 5), frame_paddings=paddings_of([10], 40))
    shares: dict[str, Any] = {"logits": (2, 40, 5), "frame_paddings": paddings_of([1.0, 0.8], 40)}
    says("CTC304", *nats(full[0]), *nats(quarter[0]), *nats(curve(RIGHT * 2, **shares)[0], 0))
    assert ("CTC304", "fraction") in found(RIGHT * 2, **shares)
    assert found(RIGHT * 2, (2, 40, 5), paddings_of([160, 120], 40)) == set()


@pytest.mark.parametrize(("widths", "seen"), [((40, 60, 80), {"subsampled-twice"}), ((80,), set())])
def test_ctc304_in_a_training(widths: tuple[int, ...], seen: set[str]) -> None:
    @jax.jit
    def step(x: Any, frames: Any) -> Any:
        return optax.ctc_loss(x, frames, jnp.asarray(RIGHT), jnp.zeros((1, 3)))

    guarded = guard_step(step, sinks=(), on_error="log", on_warning="log")
    for number in range(8):
        guarded.flush()
        assert serious(guarded) == set()
        width = widths[number % len(widths)]
        guarded(jnp.zeros((1, width, 5)), jnp.asarray(paddings_of([width // 4], width), float))
    guarded.close()
    assert serious(guarded) == {("CTC304", cause) for cause in seen}


def test_ctc401() -> None:
    given = arrays([[5, 1, 2, 3]], (1, 10, 5), None, None)
    losses, *forward = optax.ctc_loss_with_forward_probs(*given)
    says("CTC401", *nats(losses), *nats(max(array.max() for array in forward), 3))
    free = ("CTC201", "no-class-for-blank")
    assert found([[5, 1, 2, 3]]) == {free}
    assert found([[5, 1, 2, 3]], loss=optax.ctc_loss_with_forward_probs) == {free, ("CTC401", "free-symbol")}


def observed(**values: Any) -> Found:
    @jax.jit
    def step(values: Any) -> Any:
        observe(**values, targets=RIGHT, input_lengths=[10], target_lengths=[3], blank=0)
        return jnp.zeros(())

    guarded = guard_step(step, sinks=(), on_error="log", on_warning="log")
    guarded(values)
    guarded.close()
    return serious(guarded)


def test_ctc402() -> None:
    says("CTC402", *nats(curve(make=over_time)[-1]), *nats(curve()[-1], 3))
    np.testing.assert_allclose(curve(make=jax.nn.log_softmax), curve(), atol=1e-4)
    assert found(make=over_time) == found(make=jax.nn.log_softmax) == set()
    assert ("CTC402", "probabilities") in observed(log_probs=jnp.full((1, 10, 5), 0.2))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_ctc403(value: float) -> None:
    losses, nan, at_once, _ = head(features((1, 3)), jnp.zeros((2, 10)), lambda x: jnp.where(jnp.isnan(x), value, x))
    assert np.isnan(losses).tolist() == [False, True]
    assert nan.all()
    assert at_once == {("CTC403", "non-finite-features" if np.isnan(value) else "overflow"), ("CTC502", "nan")}


def test_ctc403_masks() -> None:
    unused, needed, infinite = (np.zeros((1, 10, 5), np.float32) for _ in range(3))
    unused[..., 4] = needed[..., 3] = -1e30
    infinite[..., 4] = -np.inf
    assert found(logits=infinite) == {("CTC403", "masking"), ("CTC502", "nan")}
    assert 0 < curve(logits=unused)[0] < curve()[0]
    assert 100_000 < curve(logits=needed)[0] < 100_020
    assert found(logits=unused) == set()
    assert found(logits=needed) == {("CTC503", "masked-class")}
    says("CTC403", "-1e30", "100,000")


def test_ctc404() -> None:
    wrong = curve(make=jax.nn.softmax)
    says("CTC404", *nats(wrong[0]), *nats(wrong[100]), *nats(wrong[-1]), *nats(curve()[-1], 3))

    @jax.jit
    def step(weights: Any) -> Any:
        x, frames, labels, ends = arrays(RIGHT, (1, 10, 5), None, None)
        return optax.ctc_loss(jax.nn.softmax(x @ weights), frames, labels, ends)

    guarded = guard_step(step, sinks=(), on_error="log")
    guarded(jnp.zeros((5, 5)))
    guarded.close()
    assert serious(guarded) == {("CTC404", "softmax-before-loss")}
    says("CTC404", guarded.findings[0].evidence.rpartition("made by ")[2])


def test_ctc501() -> None:
    at_once, one, blank = curve([[5, 6, 7]]), curve([[1, 2, 5]]), curve([[1, 0, 3]])
    says("CTC501", *nats(at_once[0]), *nats(one[0]), *nats(blank[0]))
    says("CTC501", f"{after(one)} and {after(blank).split()[1]}")
    assert ("CTC501", "negative") in found([[5, 6, 7]])
    certain = 20 * jax.nn.one_hot(jnp.asarray([[0, 1, 1, 0, 2, 2, 0, 3, 3, 0]]), 5)
    assert -1e-6 < curve(logits=certain)[0] < 0
    assert found(logits=certain) == set()


def test_ctc502() -> None:
    losses, left, at_once, _ = head(features(PADDED), ENDS)
    assert left.all()
    assert np.isnan(losses).tolist() == [False, True]
    assert at_once == {("CTC502", "padded-frames")}
    behind, left, _, _ = head(features(PADDED), ENDS, zero_padding)
    says("CTC502", nats(behind)[1])
    assert left.all()
    before, left, *seen = head(zero_padding(features(PADDED)), ENDS)
    assert nats(before) == nats(behind)
    assert not left.any()
    assert seen == [set(), set()]


def test_ctc503() -> None:
    losses = curve(frame_paddings=paddings_of([2], 10))
    says("CTC503", *nats(losses[0], 1), *nats(losses[-1], 1))
    short = ("CTC301", "too-short"), ("CTC503", "large-constant")
    assert found(frame_paddings=paddings_of([2], 10)) == set(short)


def test_ctc504() -> None:
    uniform = jnp.log(jnp.full((1, 10, 5), 0.2))
    says("CTC504", *nats(curve()[0], 3))
    assert observed(log_probs=uniform, losses=jnp.zeros(1)) == {("CTC504", "zero-without-certainty")}
    assert observed(log_probs=uniform, losses=jnp.asarray(curve()[0])) == set()


def test_ctc601() -> None:
    losses, nan, at_once, later = head(features(PADDED), ENDS, zero_padding)
    says("CTC601", *nats(losses))
    assert nan.all()
    assert at_once == set()
    assert ("CTC403", "whole-batch") in later
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        head(features((1, 3)), jnp.zeros((2, 10)))


def test_ctc603() -> None:
    given = arrays(RIGHT, (1, 10, 5), None, None)
    losses, gradients = trained(*given, make=jax.lax.stop_gradient, blank=0)
    says("CTC603", *nats(losses[0]))
    assert set(np.ravel(losses)) == {float(losses[0, 0])}
    assert not np.any(gradients)
    assert found(make=jax.lax.stop_gradient) == set()
