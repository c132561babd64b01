"""When the budget is spent, a sound call passes at a glimpse; a mistake is still named at once, and as at the start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it

from ctcguard import CTCVerdictError, guard_step, observe, watch
from ctcguard.case import Passing
from ctcguard.clock import AIM, ALWAYS_CALLS, SELDOM_CALLS
from ctcguard.sound import sound, sound_losses
from ctcguard_integrations import jax_call
from ctcguard_integrations.jax_recorder import LOOK_S
from ctcguard_integrations.torch_loop import Watch

BRIEF = 2 * SELDOM_CALLS + 1
"""Calls of which the last was a glimpse, as the next ones are: looks are at multiples of `SELDOM_CALLS`."""
assert BRIEF > ALWAYS_CALLS
SPENT = 1e-9
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(autouse=True)
def looks_are_never_too_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    """On calls as small as these a look costs many times what a glimpse does."""
    monkeypatch.setattr("ctcguard.clock.DEAR", math.inf)


def a_call(seed: int = 0) -> dict[str, Any]:
    random = torch.Generator().manual_seed(seed)
    return {
        "log_probs": torch.randn(30, 3, 7, generator=random).requires_grad_().log_softmax(-1),
        "targets": torch.tensor([[1, 2, 2, 4], [5, 1, 3, 3], [6, 5, 1, 0]]),
        "input_lengths": torch.tensor([30, 24, 17]),
        "target_lengths": torch.tensor([4, 4, 3]),
    }


def concatenated(call: dict[str, Any]) -> dict[str, Any]:
    counted = torch.arange(4) < call["target_lengths"][:, None]
    return call | {"targets": call["targets"][counted]}


def padded_with_nan(call: dict[str, Any]) -> None:
    valid = torch.arange(30)[:, None, None] < call["input_lengths"][None, :, None]
    call["log_probs"] = torch.where(valid, call["log_probs"], torch.nan)


def frame_of_nan(call: dict[str, Any]) -> None:
    call["log_probs"] = torch.cat([call["log_probs"][:9], torch.full((21, 3, 7), torch.nan, requires_grad=True)])


MISTAKES: dict[str, Change] = {
    "label out of range": lambda call: call["targets"].__setitem__((1, 2), 7),
    "negative label": lambda call: call["targets"].__setitem__((0, 3), -100),
    "blank": lambda call: call["targets"].__setitem__((0, 1), 0),
    "too few frames": lambda call: call["input_lengths"].__setitem__(1, 4),
    "no frames": lambda call: call["input_lengths"].__setitem__(2, 0),
    "frames beyond": lambda call: call["input_lengths"].__setitem__(0, 31),
    "labels beyond": lambda call: call["target_lengths"].__setitem__(0, 5),
    "not a number": frame_of_nan,
    "padding is not a number": padded_with_nan,
}


def verdict_after(calls: int, change: Change, shape: Callable[[dict[str, Any]], dict[str, Any]]) -> tuple[Any, ...]:
    """Code, cause, evidence and utterances of what is raised at a broken call or at its step."""
    weight = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([weight], lr=0.0)

    def step(call: dict[str, Any]) -> None:
        optimizer.zero_grad()
        log_probs = (call.pop("log_probs") * weight).log_softmax(-1)
        F.ctc_loss(log_probs, **shape(call), reduction="sum").backward()
        optimizer.step()

    with watch(on_error="raise", budget=SPENT, sinks=()) as guard:
        for seed in range(calls):
            step(a_call(seed))
        assert not calls or isinstance(guard.guard._step_cases[-1], Passing)
        call = a_call()
        change(call)
        with pytest.raises(CTCVerdictError) as raised:
            step(call)
    root = raised.value.verdict.root
    return root.code, root.cause, root.evidence, [named.index for named in root.utterances]


IN_ONE_ROW = [mistake for mistake in MISTAKES if mistake != "labels beyond"]
"""Of labels in one row, those that lengths count are all there are."""


@pytest.mark.parametrize(
    ("mistake", "shape"),
    [*((mistake, dict) for mistake in MISTAKES), *((mistake, concatenated) for mistake in IN_ONE_ROW)],
)
def test_a_mistake_is_named_as_at_the_start(mistake: str, shape: Any) -> None:
    assert verdict_after(BRIEF, MISTAKES[mistake], shape) == verdict_after(0, MISTAKES[mistake], shape)


def glimpsed(guard: Watch) -> bool:
    return isinstance(guard.guard._step_cases[-1], Passing)


def test_what_only_the_scores_show_is_seen_at_the_next_look() -> None:
    with watch(on_error="log", budget=SPENT, sinks=()) as guard:
        for call in range(3 * SELDOM_CALLS):
            given = a_call(call)
            unnormalised = 0.5 if call > BRIEF else 0.0
            F.ctc_loss(given.pop("log_probs") - unnormalised, **given)
            assert bool(guard.findings) == (call >= 3 * SELDOM_CALLS - 1)
    assert [verdict.code for verdict in guard.verdicts] == ["CTC402"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_stops_the_step(bad: float) -> None:
    weights = torch.nn.Linear(5, 7)
    optimizer = torch.optim.SGD(weights.parameters(), lr=1e-3)
    with watch(on_error="raise", budget=SPENT, sinks=()) as guard:
        for step in range(BRIEF + 1):
            optimizer.zero_grad()
            call = a_call()
            call["log_probs"] = weights(torch.randn(30, 3, 5)).log_softmax(-1)
            F.ctc_loss(**call).backward()
            if step == BRIEF:
                assert glimpsed(guard)
                weights.weight.grad[0, 3] = bad
                with pytest.raises(CTCVerdictError, match="CTC601"):
                    optimizer.step()
            else:
                optimizer.step()


@pytest.mark.parametrize("turns", [1, 2])
def test_models_that_take_turns_raise_no_alarm(turns: int) -> None:
    """The optimizer of one of them steps while the other's loss was looked at: no head is left out."""
    models = [torch.nn.Linear(5, 7) for _ in range(2)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-3) for model in models]
    with watch(on_error="raise", on_warning="raise", budget=SPENT, sinks=()) as guard:
        for step in range(8 * SELDOM_CALLS):
            which = step // turns % 2
            call = a_call(step)
            call["log_probs"] = models[which](torch.randn(30, 3, 5)).log_softmax(-1)
            optimizers[which].zero_grad()
            F.ctc_loss(**call).backward()
            optimizers[which].step()
    assert guard.findings == []


def test_a_head_that_learns_no_more_is_found_between_glimpses() -> None:
    model = torch.nn.Linear(5, 7)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with watch(on_error="log", budget=SPENT, sinks=()) as guard:
        for step in range(BRIEF + 5 * SELDOM_CALLS):
            call = a_call(step)
            call["log_probs"] = model(torch.randn(30, 3, 5)).log_softmax(-1)
            if step < BRIEF:
                F.ctc_loss(**call).backward()
            else:
                call["log_probs"] = call["log_probs"].detach()
                F.ctc_loss(**call)
            optimizer.step()
    assert [verdict.code for verdict in guard.verdicts] == ["CTC603"]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_losses_and_gradients_are_those_of_torch_bit_for_bit(reduction: str, zero_infinity: bool) -> None:
    def run() -> list[torch.Tensor]:
        results = []
        for seed in range(BRIEF + 3):
            call = a_call(seed)
            if zero_infinity and seed % 3 == 0:
                call["input_lengths"][1] = 4
            loss = F.ctc_loss(**call, reduction=reduction, zero_infinity=zero_infinity)
            results += [loss.detach(), torch.autograd.grad(loss.sum(), call["log_probs"])[0]]
        return results

    plain = run()
    with watch(on_error="log", on_warning="log", budget=SPENT, sinks=()) as guard:
        guarded = run()
        assert glimpsed(guard)
    assert all(torch.equal(a, b) for a, b in zip(plain, guarded, strict=True))


def optax_step(**settings: Any) -> Any:
    @jax.jit
    def step(logits: Any, labels: Any, frames: Any) -> Any:
        paddings = (jnp.arange(30)[None] >= frames[:, None]).astype(jnp.float32)

        def loss(scores: Any) -> Any:
            return optax.ctc_loss(scores, paddings, labels, jnp.zeros(labels.shape)).mean()

        return logits - 0.1 * jax.grad(loss)(logits)

    return guard_step(step, sinks=(), **settings)


def test_in_jax_a_step_is_compiled_once_and_a_mistake_is_named_as_at_the_start() -> None:
    random = np.random.default_rng(0)
    logits = jnp.asarray(random.normal(size=(3, 30, 7)), jnp.float32)
    labels, frames = jnp.asarray([[1, 2, 2, 4], [5, 1, 3, 3], [6, 5, 1, 2]]), jnp.asarray([30, 24, 17])
    said = {}
    for healthy in (0, BRIEF):
        step = optax_step(budget=SPENT, on_error="raise")
        for _ in range(healthy):
            step(logits, labels, frames)
        step.flush()  # the last one waits for the next, and the one before it may be one that is looked at
        assert not healthy or isinstance(step.guard._step_cases[-1], Passing)
        with pytest.raises(CTCVerdictError) as raised:
            step(logits, labels.at[1, 2].set(9), frames)
        verdict = raised.value.verdict
        said[healthy] = verdict.code, verdict.cause, [finding.code for finding in verdict.also]
        assert step._run._compiled._cache_size() == 1
        step.close()
    assert said[0] == said[BRIEF]
    assert said[0][0] == "CTC201"


def test_in_jax_scores_are_looked_at_from_time_to_time() -> None:
    step = optax_step(budget=SPENT, on_error="log", on_warning="log")
    random = np.random.default_rng(0)
    labels, frames = jnp.asarray([[1, 2, 2, 4]] * 3), jnp.asarray([30, 24, 17])
    for call in range(3 * SELDOM_CALLS + 1):
        logits = jnp.asarray(random.normal(size=(3, 30, 7)), jnp.float32)
        probabilities = jax.nn.softmax(logits)
        step(probabilities if call > BRIEF else logits, labels, frames)
        step.flush()  # so that what it cost is known at the next one
    step.close()
    assert [verdict.code for verdict in step.verdicts] == ["CTC404"]


@pytest.mark.parametrize(("step_s", "looked_at"), [(1.0, 1.0), (0.01, 0.1 * AIM)])
def test_in_jax_what_a_look_takes_of_the_device_is_held_against_the_budget(
    step_s: float, looked_at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctcguard.clock.DEAR", 0.0)  # only what the budget allows
    step = optax_step(budget=0.01, on_error="log", on_warning="log")
    shares: list[bool] = []
    step.guard.clock.now = lambda: len(shares) * step_s  # in which the host takes no time
    logits, labels, frames = jnp.zeros((3, 30, 7)), jnp.asarray([[1, 2, 2, 4]] * 3), jnp.asarray([30, 24, 17])
    for _ in range(ALWAYS_CALLS + 201):
        step(logits, labels, frames)
        shares.append(not step.guard.brief)
    assert sum(shares[-200:]) / 200 == pytest.approx(looked_at, rel=0.2)
    assert step.guard.clock.recent_fraction() == pytest.approx(looked_at * LOOK_S / step_s, rel=0.2)
    step.close()


@pytest.mark.parametrize("wrong", [False, True])
def test_in_jax_a_call_without_losses_passes_and_its_lengths_are_added_up(wrong: bool) -> None:
    """A loss of the user's own, labels in one row."""
    given = {"input_lengths": jnp.asarray([30, 24]), "target_lengths": jnp.asarray([3, 2]), "blank": 0}

    @jax.jit
    def loss(logits: Any, labels: Any) -> Any:
        observe(logits=logits, targets=labels, **given)
        return logits.sum()

    step = guard_step(loss, sinks=(), budget=SPENT, on_error="log", on_warning="log")
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 30, 7)), jnp.float32)
    labels = jnp.asarray([1, 2, 3, 4, 5, *([6] if wrong else [])])
    for _ in range(BRIEF):
        step(logits, labels)
        step.flush()  # so that what it cost is known at the next one
    assert isinstance(step.guard._step_cases[-1], Passing) is not wrong
    step.close()
    assert {verdict.code for verdict in step.verdicts} == ({"CTC303"} if wrong else set())


def test_in_jax_the_device_calls_sound_only_what_is_so_on_the_host() -> None:
    """A step with raise hands its state back on the word of the device alone."""
    random, told = np.random.default_rng(0), {True: 0, False: 0}
    frames_of, labels_of = np.arange(12)[None], np.arange(4)[None]

    @jax.jit
    def measured(arrays: dict[str, Any]) -> Any:
        return jax_call.of_optax(arrays | {"blank_id": 0}, (arrays["losses"],)).measured(look=jnp.asarray(False))

    for _ in range(300):
        right = random.random() < 0.3
        frames = random.integers(4 if right else 0, 13, (3, 1)) if random.random() < 0.8 else np.full((3, 1), 5)
        counts = random.integers(1 if right else 0, 4 if right else 5, (3, 1))
        arrays = {
            "logits": np.zeros((3, 12, 5), np.float32),
            "logit_paddings": (frames_of >= frames).astype(np.float32),
            "labels": random.integers(1 if right else -1, 5 if right else 6, (3, 4)),
            "label_paddings": (labels_of >= counts).astype(np.float32),
            "losses": random.choice([3.0, 3.0, 3.0, 0.0 if not right else 1.0, 2.0 if right else np.inf], 3),
        }
        arrays["labels"] = np.where(labels_of < counts, arrays["labels"], random.integers(0, 2 - right))
        for name in ("logit_paddings", "label_paddings"):
            if not right and random.random() < 0.2:
                arrays[name] = random.permutation(arrays[name].T).T
        found = measured({name: jnp.asarray(value) for name, value in arrays.items()})
        packed = np.asarray(found.packed)
        told[bool(packed[-1])] += 1
        if not packed[-1]:
            passing = found.site.passing(packed)
            assert passing is not None
            assert sound(passing)
            assert sound_losses(passing["losses"])
    assert min(told.values()) > 20, told


def test_in_jax_a_batch_of_nobody_is_no_fault_of_the_guard() -> None:
    step = optax_step(on_error="raise", on_warning="raise")
    step(jnp.zeros((0, 30, 7)), jnp.zeros((0, 4), jnp.int32), jnp.zeros((0,), jnp.int32))
    step.close()
    assert step.guard.calls == 1
    assert [finding.code for finding in step.findings if finding.code.startswith("CTC9")] == []
