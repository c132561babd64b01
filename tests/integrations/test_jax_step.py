"""`guard_step` around real JAX steps of every kind: silent and neutral when healthy, stopped at step 0 when broken."""

from __future__ import annotations

import functools
import gc
import json
import time
import traceback
import weakref
from collections.abc import Callable
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
from optax import ctc_loss

from ctcguard import CTCVerdictError, guard_step, observe
from ctcguard.errors import CallError, SettingsError
from ctcguard_integrations import jax_seam

CLASSES = 12
FRAMES = 40
STEPS = 3
ADAM = optax.adam(1e-2)
QUIET = {"sinks": ("jsonl",), "run_dir": "run"}
LATER = QUIET | {"on_error": "log", "on_warning": "log"}


class Run(NamedTuple):
    """What a training leaves."""

    state: Any
    losses: list[Any]


def batch(step: int, labels: int = CLASSES) -> dict[str, Any]:
    random = np.random.default_rng(step)
    frames, counts = np.asarray([40, 36, 30, 22]), np.asarray([6, 6, 5, 4])
    targets = random.integers(1, labels, (4, 6)).astype(np.int32)
    if labels > CLASSES:
        targets[1, 0] = labels - 1
    return {
        "features": random.normal(size=(4, FRAMES, 8)).astype(np.float32),
        "frame_paddings": (np.arange(FRAMES)[None] >= frames[:, None]).astype(np.float32),
        "labels": targets,
        "label_paddings": (np.arange(6)[None] >= counts[:, None]).astype(np.float32),
    }


def weights() -> dict[str, jax.Array]:
    random = np.random.default_rng(7)
    return {name: jnp.asarray(random.normal(size=size) * 0.3, jnp.float32) for name, size in SIZES.items()}


SIZES = {"body": (8, 16), "head": (16, CLASSES)}


def logits_of(parameters: Any, data: Any, dtype: Any = jnp.float32) -> jax.Array:
    hidden = jnp.tanh(data["features"].astype(dtype) @ parameters["body"].astype(dtype))
    return hidden @ parameters["head"].astype(dtype)


def loss_of(parameters: Any, data: Any, dtype: Any = jnp.float32) -> jax.Array:
    logits = logits_of(parameters, data, dtype)
    return ctc_loss(logits, data["frame_paddings"], data["labels"], data["label_paddings"]).mean()


def stepper(gradient: Callable[..., Any]) -> Callable[..., Any]:
    def step(parameters: Any, state: Any, data: Any) -> Any:
        loss, gradients = gradient(parameters, data)
        updates, state = ADAM.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state, loss

    return step


def has_aux(parameters: Any, data: Any) -> Any:
    (loss, _), gradients = jax.value_and_grad(lambda p, d: (loss_of(p, d), d["labels"]), has_aux=True)(parameters, data)
    return loss, gradients


def in_scan(parameters: Any, data: Any) -> Any:
    parts = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), data)

    def body(total: Any, part: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, part)
        return jax.tree.map(jnp.add, total, gradients), loss

    gradients, losses = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, parameters), parts)
    return losses.mean(), gradients


def in_vmap(parameters: Any, data: Any) -> Any:
    def mean(p: Any, d: Any) -> jax.Array:
        return jax.vmap(lambda item: loss_of(p, jax.tree.map(lambda x: x[None], item)))(d).mean()

    return jax.value_and_grad(mean)(parameters, data)


def half(parameters: Any, data: Any) -> Any:
    return jax.value_and_grad(functools.partial(loss_of, dtype=jnp.bfloat16))(parameters, data)


def forward_probs(parameters: Any, data: Any) -> Any:
    def mean(p: Any, d: Any) -> jax.Array:
        arguments = (d["frame_paddings"], d["labels"], d["label_paddings"])
        return optax.losses.ctc_loss_with_forward_probs(logits_of(p, d), *arguments)[0].mean()

    return jax.value_and_grad(mean)(parameters, data)


inner = jax.jit(jax.value_and_grad(loss_of))
plain = stepper(jax.value_and_grad(loss_of))


def pytree_loop(step: Any, labels: int = CLASSES) -> Run:
    parameters = weights()
    state, losses = ADAM.init(parameters), []
    for number in range(STEPS):
        parameters, state, loss = step(parameters, state, batch(number, labels))
        losses.append(np.asarray(loss))
    return Run((parameters, state), losses)


class Linen(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return flax.linen.Dense(CLASSES)(jnp.tanh(flax.linen.Dense(16)(x)))


def linen_step(state: TrainState, data: Any, around: Callable[..., Any] = lambda f: f) -> Any:
    def mean(parameters: Any) -> jax.Array:
        logits = state.apply_fn({"params": parameters}, data["features"])
        return ctc_loss(logits, data["frame_paddings"], data["labels"], data["label_paddings"]).mean()

    loss, gradients = jax.value_and_grad(around(mean))(state.params)
    return state.apply_gradients(grads=gradients), loss


def linen_scan(state: TrainState, data: Any) -> Any:
    """Two micro-batches, each with an update of its own."""
    return jax.lax.scan(linen_step, state, jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), data))


def linen_loop(step: Any, labels: int = CLASSES) -> Run:
    model = Linen()
    state = TrainState.create(
        apply_fn=model.apply, params=model.init(jax.random.key(0), batch(0)["features"])["params"], tx=ADAM
    )
    losses = []
    for number in range(STEPS):
        state, loss = step(state, batch(number, labels))
        losses.append(np.asarray(loss))
    return Run((state.params, state.opt_state), losses)


class Nnx(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.body, self.head = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(jnp.tanh(self.body(x)))


def nnx_step(model: Nnx, optimizer: Any, data: Any) -> jax.Array:
    def mean(model: Nnx) -> jax.Array:
        return ctc_loss(model(data["features"]), data["frame_paddings"], data["labels"], data["label_paddings"]).mean()

    loss, gradients = nnx.value_and_grad(mean)(model)
    optimizer.update(model, gradients)
    return loss


LAST_MODEL: list[Any] = []


def nnx_loop(step: Any, labels: int = CLASSES) -> Run:
    model = Nnx()
    LAST_MODEL[:] = [model]
    optimizer = nnx.Optimizer(model, ADAM, wrt=nnx.Param)
    losses = [np.asarray(step(model, optimizer, batch(number, labels))) for number in range(STEPS)]
    return Run(jax.tree.map(np.asarray, (nnx.state(model), nnx.state(optimizer))), losses)


# Other kinds, and several devices, are in test_jax_matrix.py.
STEPS_BY_KIND: dict[str, tuple[Any, Any, str, int]] = {  # step, loop, route, calls in a step
    "jit": (jax.jit(plain), pytree_loop, "auxiliary", 1),
    "has_aux": (jax.jit(stepper(has_aux)), pytree_loop, "auxiliary", 1),
    "vmap": (jax.jit(stepper(in_vmap)), pytree_loop, "auxiliary", 1),
    "bfloat16": (jax.jit(stepper(half)), pytree_loop, "auxiliary", 1),
    "forward probs": (jax.jit(stepper(forward_probs)), pytree_loop, "auxiliary", 1),
    "scan": (jax.jit(stepper(in_scan)), pytree_loop, "callback", 2),
    "inner jit": (jax.jit(stepper(inner)), pytree_loop, "callback", 1),
    "plain with jit": (stepper(inner), pytree_loop, "callback", 1),
    "linen, scan, donated": (jax.jit(linen_scan, donate_argnums=0), linen_loop, "callback", 2),
    "nnx": (nnx.jit(nnx_step), nnx_loop, "auxiliary", 1),
    "nnx tree": (nnx.jit(nnx_step, graph=False), nnx_loop, "auxiliary", 1),
}
every_kind = pytest.mark.parametrize("kind", STEPS_BY_KIND)


@functools.cache
def unguarded(kind: str) -> Run:
    step, loop, _, _ = STEPS_BY_KIND[kind]
    return loop(step)


def assert_neutral(run: Run, plain_run: Run) -> None:
    """The state is equal bit by bit; a loss that is only printed may differ in its last bits."""
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), run.state, plain_run.state)
    assert jax.tree.all(same)
    ulps = np.abs(np.subtract(run.losses, plain_run.losses)) / np.spacing(np.abs(np.asarray(plain_run.losses)))
    assert (ulps <= 4).all()


def records(kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in Path("run/findings.jsonl").read_text().splitlines()]
    return [line for line in lines if line["type"] == kind]


@every_kind
def test_neutral_and_silent_when_healthy_stopped_when_broken(kind: str) -> None:
    step, loop, route, calls = STEPS_BY_KIND[kind]
    guarded = guard_step(step, **QUIET)
    assert_neutral(loop(guarded), unguarded(kind))
    assert guarded.findings == []
    with pytest.raises(CTCVerdictError) as caught:
        loop(guarded, labels=CLASSES + 2)
    guarded.close()
    verdict = caught.value.verdict
    assert (verdict.code, verdict.cause, verdict.step) == ("CTC201", "label-beyond-head", STEPS)
    assert (verdict.root.framework, verdict.root.source.partition("_with")[0]) == ("jax", "optax.ctc_loss")
    assert "test_jax_step.py:" in verdict.root.call_site
    assert max(verdict.root.utterances[0].labels or ()) >= CLASSES
    (end,) = records("end")
    others = dict.fromkeys(("auxiliary", "callback", "direct"), 0)
    assert end["routes"] == others | {route: (STEPS + 1) * calls}
    assert (end["steps"], end["calls"]) == (STEPS, (STEPS + 1) * calls)


@pytest.mark.parametrize("kind", ["forward probs", "scan", "linen, scan, donated", "nnx"])  # of each route and loop
def test_with_log_it_is_judged_later_and_goes_on(kind: str) -> None:
    step, loop, _, calls = STEPS_BY_KIND[kind]
    guarded = guard_step(step, **LATER)
    assert_neutral(loop(guarded), unguarded(kind))
    guarded.flush()
    assert guarded.findings == []
    loop(guarded, labels=CLASSES + 2)
    guarded.close()
    assert {f.step for f in guarded.findings if f.code == "CTC201"} == set(range(STEPS, 2 * STEPS))
    assert {f.micro_step for f in guarded.findings} <= set(range(calls))
    assert records("end")[0]["calls"] == 2 * STEPS * calls


@pytest.mark.parametrize("kind", ["jit", "nnx", "plain with jit"])
def test_the_first_step_is_not_taken(kind: str) -> None:
    step, loop, _, _ = STEPS_BY_KIND[kind]
    guarded = guard_step(step, **QUIET)
    with pytest.raises(CTCVerdictError) as caught:
        loop(guarded, labels=CLASSES + 2)
    guarded.close()
    assert caught.value.verdict.step == 0
    assert records("end")[0]["steps"] == 0
    if kind == "nnx":
        after = jax.tree.map(np.asarray, nnx.state(LAST_MODEL[0]))
        assert jax.tree.all(jax.tree.map(np.array_equal, jax.tree.map(np.asarray, nnx.state(Nnx())), after))


def test_a_plain_step_is_judged_where_it_stands() -> None:
    guarded = guard_step(lambda p, d: jax.value_and_grad(loss_of)(p, d), **QUIET)
    loss, _ = guarded(weights(), batch(0))
    assert np.isfinite(loss)
    with pytest.raises(CTCVerdictError):
        guarded(weights(), batch(0, CLASSES + 2))
    guarded.close()
    assert guarded.guard.end_record()["routes"] == {"auxiliary": 0, "callback": 0, "direct": 2}


def test_options_of_jit_are_kept() -> None:
    traces = []

    @guard_step(**QUIET)
    @functools.partial(jax.jit, static_argnames=("scale",), donate_argnums=(0,))
    def step(parameters: Any, data: Any, *, scale: str) -> Any:
        traces.append(scale)
        loss, gradients = jax.value_and_grad(loss_of)(parameters, data)
        return jax.tree.map(lambda p, g: p - 0.01 * g, parameters, gradients), loss

    parameters = first = weights()
    for number in range(3):
        parameters, _ = step(parameters, batch(number), scale="mean")
    step(parameters, batch(3), scale="sum")
    assert traces == ["mean", "sum"]  # compiled once for each
    assert first["body"].is_deleted()
    assert step.__name__ == "step"
    assert step.lower(weights(), batch(0), scale="mean").as_text()
    step.close()


def test_methods_and_partials() -> None:
    class Trainer:
        @functools.partial(jax.jit, static_argnums=0)
        def decorated(self, parameters: Any, data: Any) -> Any:
            return jax.value_and_grad(loss_of)(parameters, data)

        guarded = guard_step(decorated, **QUIET)

    for step in (Trainer().guarded, guard_step(Trainer().decorated, **QUIET)):
        assert np.isfinite(step(weights(), batch(0))[0])
    partial = guard_step(functools.partial(jax.jit(plain), weights()), **QUIET)
    partial(ADAM.init(weights()), batch(0))
    for guard in (Trainer.guarded, step, partial):
        assert guard.guard.end_record()["routes"]["auxiliary"] == 1
        guard.close()


def test_the_outputs_of_a_slow_step_are_handed_back_before_it_is_done() -> None:
    @jax.jit
    def slow(parameters: Any, data: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, data)
        busy = jax.lax.fori_loop(0, 60, lambda _, x: jnp.tanh(x @ x), jnp.full((700, 700), loss * 1e-9))
        return jax.tree.map(lambda p, g: p - g * busy.sum(), parameters, gradients), loss

    guarded = guard_step(slow, **LATER)
    jax.block_until_ready(guarded(weights(), batch(0)))
    started = time.perf_counter()
    outputs = guarded(weights(), batch(1, CLASSES + 2))
    returned = time.perf_counter() - started
    assert not jax.tree.leaves(outputs)[0].is_ready()
    assert guarded.findings == []
    jax.block_until_ready(outputs)
    assert time.perf_counter() - started > 3 * returned
    guarded.flush()
    assert {finding.step for finding in guarded.findings} == {1}
    guarded.close()


def test_errors_of_the_step_are_its_own() -> None:
    def broken(parameters: Any) -> Any:
        logits = jnp.zeros((2, 9, 4))
        return ctc_loss(logits, jnp.zeros((2, 8)), jnp.ones((2, 3), int), jnp.zeros((2, 3)))

    for step in (broken, jax.jit(broken)):
        guarded = guard_step(step, **QUIET)
        with pytest.raises(ValueError, match="Shape mismatch") as plain_error:
            step(weights())
        with pytest.raises(ValueError, match="Shape mismatch") as error:
            guarded(weights())
        assert str(error.value) == str(plain_error.value)
        assert "return ctc_loss(logits, jnp.zeros((2, 8))" in "".join(traceback.format_tb(error.tb))
        assert guarded.findings == []
        guarded.close()


def test_after_an_error_of_the_step_nobody_says_that_no_loss_was_seen() -> None:
    def fails_before(parameters: Any) -> Any:
        raise KeyError("before the loss")

    def fails_after(parameters: Any) -> Any:
        loss_of(parameters, batch(0))
        raise KeyError("after the loss")

    for step in (fails_before, jax.jit(fails_before), fails_after, jax.jit(fails_after)):
        guarded = guard_step(step, **QUIET)
        for _ in range(2):
            with pytest.raises(KeyError):
                guarded(weights())
        guarded.close()
        assert guarded.findings == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nor_after_an_error_of_the_running_program() -> None:
    def fail(loss: Any) -> None:
        raise KeyError("while it runs")

    def step(parameters: Any, data: Any) -> Any:
        loss = loss_of(parameters, data)
        return loss + jax.pure_callback(lambda x: fail(x) or x, jax.ShapeDtypeStruct((), loss.dtype), loss)

    guarded = guard_step(jax.jit(step), **LATER)
    with pytest.raises(jax.errors.JaxRuntimeError, match="while it runs"):
        jax.block_until_ready(guarded(weights(), batch(0)))
    guarded.close()
    assert guarded.findings == []


def test_a_second_guard() -> None:
    first = guard_step(jax.jit(plain), **QUIET)
    assert guard_step(first) is first
    second = guard_step(first, **LATER)
    assert second.step is first.step
    pytree_loop(second)
    second.flush()
    assert (first.guard.calls, second.guard.calls) == (0, STEPS)
    second.close()
    first.close()


def test_a_step_without_a_loss_is_said_after_its_first_call() -> None:
    guarded = guard_step(jax.jit(lambda x: x + 1), sinks=("jsonl",), run_dir="run")
    guarded(1.0)
    (finding,) = guarded.findings
    assert (finding.code, finding.cause, finding.severity) == ("CTC901", "no-ctc-call", "warning")
    assert "observe" in finding.fix
    guarded(1.0)
    guarded.close()
    assert len(guarded.findings) == 1


def test_what_was_traced_before_is_seen() -> None:
    evaluate = jax.jit(loss_of)
    evaluate(weights(), batch(0))  # cached by JAX, without a guard

    def step(parameters: Any, data: Any) -> Any:
        return evaluate(parameters, data)

    for form in (step, jax.jit(step)):
        form(weights(), batch(0))
        guarded = guard_step(form, **QUIET)
        with pytest.raises(CTCVerdictError):
            guarded(weights(), batch(0, CLASSES + 2))
        guarded.close()
        evaluate(weights(), batch(0, CLASSES + 2))  # unguarded as before


def test_what_was_compiled_ahead_of_time_is_said() -> None:
    arguments = (weights(), ADAM.init(weights()), batch(0))
    guarded = guard_step(jax.jit(plain).lower(*arguments).compile(), **QUIET)
    guarded(*arguments)
    assert [(finding.code, finding.cause) for finding in guarded.findings] == [("CTC901", "compiled-earlier")]
    guarded.close()


def test_the_head_is_checked_before_anything_is_compiled() -> None:
    arguments = (weights(), ADAM.init(weights()), batch(0))
    events: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: events.append(event))
    guarded = guard_step(jax.jit(plain), vocabulary=["<blank>", *"abcdefghijklmnop"], **QUIET)
    with pytest.raises(CTCVerdictError) as caught:
        guarded(*arguments)
    guarded.close()
    assert [event for event in events if "backend_compile" in event] == []
    jax.jit(lambda x: x * 3)(1.0)
    assert [event for event in events if "backend_compile" in event] != []
    assert (caught.value.verdict.code, caught.value.verdict.root.phase) == ("CTC101", "setup")


def test_the_blank_of_the_vocabulary() -> None:
    guarded = guard_step(jax.jit(plain), vocabulary=[*"abcdefghijk", "<blank>"], **QUIET)
    with pytest.raises(CTCVerdictError) as caught:
        pytree_loop(guarded)
    guarded.close()
    assert (caught.value.verdict.code, caught.value.verdict.cause) == ("CTC102", "other-blank")


def test_text_of_the_utterances() -> None:
    symbols = ["<blank>", *"abcdefghijk"]
    guarded = guard_step(jax.jit(plain), vocabulary=symbols, **LATER)
    data = batch(0)
    data["label_paddings"][:] = 0
    data["labels"][2, 1] = 0
    guarded(weights(), ADAM.init(weights()), data)
    guarded.close()
    (finding,) = [finding for finding in guarded.findings if finding.code == "CTC203"]
    labels = tuple(data["labels"][2].tolist())
    assert (finding.utterances[0].index, finding.utterances[0].labels) == (2, labels)
    assert finding.utterances[0].text == "".join(symbols[label] for label in labels)


def test_settings_are_checked_at_once() -> None:
    with pytest.raises(SettingsError, match="on_eror"):
        guard_step(plain, on_eror="log")


@pytest.mark.parametrize("wrap", [lambda step: step, jax.jit], ids=["plain", "jit"])
def test_observe(wrap: Callable[..., Any]) -> None:
    def step(log_probs: jax.Array, targets: jax.Array) -> jax.Array:
        observe(log_probs=log_probs, targets=targets, input_lengths=[9, 7], target_lengths=[2, 1], blank=0)
        return log_probs.sum()

    log_probs, targets = jnp.log(jnp.full((2, 9, 4), 0.25)), jnp.asarray([[1, 2], [3, 0]])
    wrap(step)(jnp.exp(log_probs), targets)  # no guard, no effect
    guarded = guard_step(wrap(step), **QUIET)
    guarded(log_probs, targets)
    assert guarded.findings == []
    with pytest.raises(CTCVerdictError) as caught:
        guarded(jnp.exp(log_probs), targets)
    assert (caught.value.verdict.code, caught.value.verdict.cause) == ("CTC402", "probabilities")
    assert caught.value.verdict.root.source == "ctcguard.observe"
    with pytest.raises(CallError):
        guard_step(lambda x: observe(logits=x, targets=[1], input_lengths=[9], target_lengths=[1], blank=0), **QUIET)(
            jnp.zeros((2, 9, 4))
        )
    guarded.close()


def test_optax_is_left_as_it_was() -> None:
    seen, code = optax.ctc_loss_with_forward_probs, optax.ctc_loss_with_forward_probs.__code__
    gc.collect()
    guarded = guard_step(jax.jit(plain), **QUIET)
    assert optax.ctc_loss_with_forward_probs is seen
    if len(jax_seam._users) == 1:
        assert seen.__code__ is not code
        guarded.close()
        assert seen.__code__ is code
        assert seen.__kwdefaults__ == {"blank_id": 0, "log_epsilon": -1e5}
    guarded.close()


def test_a_guard_can_be_collected() -> None:
    guarded = guard_step(jax.jit(plain), **QUIET)
    pytree_loop(guarded)
    guarded.close()
    alive = weakref.ref(guarded)
    del guarded
    gc.collect()
    assert alive() is None
