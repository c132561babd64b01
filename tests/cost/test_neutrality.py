"""After 20 steps the weights are those of a training without a guard, bit for bit, and so is every random generator.

The guard judges the first steps in full and the last ones in short. Each integration has its table; a row of it says
how one trains.
"""

from __future__ import annotations

import contextlib
import random
from itertools import cycle, product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from transformers import Trainer, TrainingArguments, Wav2Vec2BertConfig, Wav2Vec2BertForCTC, default_data_collator

from ctcguard import CTCGuard, guard_step, watch
from tests.modes import deterministic

STEPS, CLASSES, FEATURES, FRAMES, UTTERANCES = 20, 12, 8, 30, 4
FULL_CALLS = 10
GUARDS: dict[str, dict[str, Any]] = {
    "raise": {"on_error": "raise", "on_warning": "raise"},
    "alert": {"on_error": "alert", "on_warning": "alert"},
    "log": {"on_error": "log", "on_warning": "log"},
}
"""What a verdict would do: with the first they are waited for before each step, with the others they come later."""
QUIET: dict[str, Any] = {"sinks": (), "budget": 1e-9}


class Left(NamedTuple):
    """What a training leaves: weights and optimizer state, losses, the state of every random generator."""

    weights: list[Any]
    losses: list[float]
    randomness: list[Any]

    def same(self, other: Left) -> bool:
        """Whether every bit is."""
        pairs = list(zip(self.weights + self.randomness, other.weights + other.randomness, strict=True))
        return self.losses == other.losses and all(bits(one) == bits(two) for one, two in pairs)


def bits(value: Any) -> Any:
    """Comparable, and distinct wherever one bit is."""
    if isinstance(value, torch.Tensor):
        value = value.detach().contiguous().view(torch.uint8) if value.ndim else value.reshape(1).view(torch.uint8)
        return value.numpy().tobytes()
    return np.asarray(value).tobytes() if isinstance(value, np.ndarray | jax.Array) else value


def generators() -> list[Any]:
    _, keys, *rest = np.random.get_state()
    return [torch.get_rng_state(), random.getstate(), keys, rest]


def seed() -> None:
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(autouse=True)
def full_looks_end_within_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctcguard.clock.ALWAYS_CALLS", FULL_CALLS)


# PyTorch loops.


class LoopRow(NamedTuple):
    """A loss and how it is trained."""

    reduction: str
    zero_infinity: bool = False
    dropout: float = 0.0
    accumulation: int = 1
    amp: bool = False
    scaler: bool = False
    evaluation: bool = False
    deterministic: bool = False
    concatenated: bool = False


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"dropout": 0.3},
    "accumulation": {"accumulation": 2},
    "bfloat16": {"amp": True},
    "scaler": {"amp": True, "scaler": True},
    "evaluation": {"evaluation": True, "dropout": 0.3},
    "deterministic": {"deterministic": True},
    "concatenated": {"concatenated": True},
    "zero_infinity": {"zero_infinity": True},
    "all": {
        "dropout": 0.3, "accumulation": 2, "amp": True, "scaler": True, "evaluation": True, "deterministic": True,
        "zero_infinity": True,
    },
}  # fmt: skip
LOOPS = {
    f"{reduction}, {way}": LoopRow(reduction, **options)
    for reduction, (way, options) in product(("mean", "sum", "none"), WAYS.items())
}


class Net(torch.nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.body, self.dropout = torch.nn.Linear(FEATURES, 12), torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(12, CLASSES)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = self.dropout(self.body(features).tanh())
        return self.head(hidden).log_softmax(-1, dtype=torch.float32).transpose(0, 1)


def batch(number: int, concatenated: bool) -> tuple[torch.Tensor, ...]:
    draws = torch.Generator().manual_seed(number)
    counts = torch.randint(2, 7, (UTTERANCES,), generator=draws)
    frames = torch.randint(20, FRAMES + 1, (UTTERANCES,), generator=draws)
    targets = torch.randint(1, CLASSES, (UTTERANCES, 6), generator=draws)
    if concatenated:
        targets = targets[torch.arange(6) < counts[:, None]]
    return torch.randn(UTTERANCES, FRAMES, FEATURES, generator=draws), targets, frames, counts


def in_a_loop(row: LoopRow) -> Left:
    """Train as users do."""
    seed()
    net, losses = Net(row.dropout), []
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", enabled=row.scaler, init_scale=1024.0, growth_interval=5)

    def loss(number: int) -> torch.Tensor:
        features, *labels = batch(number, row.concatenated)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=row.amp):
            log_probs = net(features)
        found = F.ctc_loss(log_probs, *labels, reduction=row.reduction, zero_infinity=row.zero_infinity)
        return found.mean() if row.reduction == "none" else found

    with deterministic() if row.deterministic else contextlib.nullcontext():
        for step in range(STEPS):
            optimizer.zero_grad()
            for part in range(row.accumulation):
                one = loss(step * row.accumulation + part)
                scaler.scale(one / row.accumulation).backward()
                losses.append(one.item())
            scaler.step(optimizer)
            scaler.update()
            if row.evaluation and step % 5 == 4:
                net.eval()
                with torch.no_grad():
                    losses.append(loss(1000 + step).item())
                net.train()
    moments = [value for state in optimizer.state.values() for value in state.values()]
    weights = [*net.parameters(), *moments]
    return Left(weights, losses, [*generators(), scaler.state_dict()])


@pytest.mark.parametrize(("name", "on_finding"), list(zip(LOOPS, cycle(GUARDS), strict=False)))
def test_a_loop(name: str, on_finding: str) -> None:
    plain = in_a_loop(LOOPS[name])
    with watch(**QUIET, **GUARDS[on_finding]) as guard:
        guarded = in_a_loop(LOOPS[name])
    assert guard.findings == []
    assert guard.guard.calls == len(plain.losses)
    assert guard.guard.brief  # the last call was measured in short
    assert guarded.same(plain)


def test_a_loop_as_a_decorated_function() -> None:
    row = LOOPS["mean, dropout"]
    assert watch(**QUIET)(in_a_loop)(row).same(in_a_loop(row))


def test_a_loss_that_is_only_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    row, original = LOOPS["none, dropout"], torch.ctc_loss
    plain = in_a_loop(row)
    with watch(**QUIET) as guard, monkeypatch.context() as patch:

        def own(log_probs: torch.Tensor, *labels: Any, **options: Any) -> torch.Tensor:
            losses = original(log_probs, *labels, 0, 0, False)
            names = ("targets", "input_lengths", "target_lengths")
            call = dict(zip(names, labels, strict=True)) | {"log_probs": log_probs, "losses": losses}
            guard.observe(**call, blank=0, batch_first=False)
            return losses

        patch.setattr(F, "ctc_loss", own)
        guarded = in_a_loop(row)
    assert (guard.findings, guard.guard.calls) == ([], STEPS)
    assert guarded.same(plain)


@pytest.mark.parametrize("disturb", ["draw", "write", "gradient"])
def test_twin_what_is_disturbed_is_seen(disturb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, in the last step: a random number more, one bit of a weight, or of a gradient."""
    calls = []

    def disturbed(log_probs: torch.Tensor, *labels: Any) -> torch.Tensor:
        calls.append(log_probs)
        if len(calls) == STEPS and disturb == "draw":
            torch.rand(())
        if len(calls) == STEPS and disturb == "gradient":
            log_probs.register_hook(lambda gradient: torch.nextafter(gradient, gradient + 1))
        if len(calls) == STEPS and disturb == "write":
            log_probs.data[0, 0, 0].mul_(1.0 + 1e-6)
        return original(log_probs, *labels)

    row = LOOPS["mean, plain"]
    plain, original = in_a_loop(row), torch.ctc_loss
    with monkeypatch.context() as patch:
        patch.setattr(torch, "ctc_loss", disturbed)
        assert not in_a_loop(row).same(plain)


# The Trainer of Hugging Face.

EVALUATES = {"eval_strategy": "steps", "eval_steps": 5}
TRAINERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mean": ("mean", "raise", {}),
    "sum, dropout, accumulation": ("sum", "log", {"dropout": 0.2, "gradient_accumulation_steps": 2}),
    "mean, bfloat16, evaluation": ("mean", "log", {"bf16": True, **EVALUATES}),
    "sum, all": (
        "sum",
        "raise",
        {"dropout": 0.2, "gradient_accumulation_steps": 2, "bf16": True, "deterministic": True, "zero_infinity": True}
        | EVALUATES,
    ),
}
"""Reduction, what a verdict would do, and how one trains."""


def a_model(reduction: str, dropout: float, zero_infinity: bool) -> Wav2Vec2BertForCTC:
    config = Wav2Vec2BertConfig(
        vocab_size=CLASSES, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        feature_projection_input_dim=FEATURES, conv_depthwise_kernel_size=3, pad_token_id=0, layerdrop=0.0,
        ctc_loss_reduction=reduction, ctc_zero_infinity=zero_infinity, hidden_dropout=dropout, final_dropout=dropout,
        attention_dropout=dropout, mask_time_prob=0.1 if dropout else 0.0, mask_time_length=2,
    )  # fmt: skip
    model = Wav2Vec2BertForCTC(config)
    model.accepts_loss_kwargs = False  # so that the Trainer divides by the accumulation
    return model


def in_a_trainer(reduction: str, way: dict[str, Any], callbacks: list[Any]) -> Left:
    """Train as users do."""
    seed()
    options = {"dropout": 0.0, "zero_infinity": False, "deterministic": False, **way}
    strictly = deterministic() if options.pop("deterministic") else contextlib.nullcontext()
    model = a_model(reduction, options.pop("dropout"), options.pop("zero_infinity"))
    draws = torch.Generator().manual_seed(0)
    features, labels = torch.randn(16, FRAMES, FEATURES, generator=draws), torch.randint(1, CLASSES, (16, 6))
    data = [{"input_features": x, "labels": y} for x, y in zip(features, labels, strict=True)]
    arguments = TrainingArguments(
        output_dir="out", max_steps=STEPS, per_device_train_batch_size=2, save_strategy="no", logging_steps=1,
        report_to=[], disable_tqdm=True, seed=0, use_cpu=True, learning_rate=1e-3, **options,
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, train_dataset=data, eval_dataset=data[:4], data_collator=default_data_collator,
        callbacks=callbacks,
    )  # fmt: skip
    with strictly:
        trainer.train()
    kept = ("loss", "eval_loss", "grad_norm")
    losses = [value for log in trainer.state.log_history for name, value in log.items() if name in kept]
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    return Left([*model.parameters(), *moments], losses, generators())


@pytest.mark.parametrize("name", TRAINERS)
def test_the_trainer(name: str) -> None:
    reduction, on_finding, way = TRAINERS[name]
    plain = in_a_trainer(reduction, way, [])
    guard = CTCGuard(**QUIET, **GUARDS[on_finding])
    assert in_a_trainer(reduction, way, [guard]).same(plain)
    assert guard.watch is not None
    assert guard.watch.findings == []
    assert guard.watch.guard.calls >= STEPS * way.get("gradient_accumulation_steps", 1)
    assert len(plain.losses) >= 2 * STEPS


# Steps of JAX.


class StepRow(NamedTuple):
    """A loss and how it is trained."""

    reduction: str = "mean"
    dropout: float = 0.0
    accumulation: int = 1
    half: bool = False
    evaluation: bool = False
    donated: bool = False


STEP_ROWS = {
    "mean, log": StepRow(),
    "sum, evaluation, donated, raise": StepRow("sum", evaluation=True, donated=True),
    "mean, dropout, accumulation, bfloat16, log": StepRow(dropout=0.3, accumulation=2, half=True),
}


def jax_losses(weights: Any, data: Any, key: jax.Array, row: StepRow) -> jax.Array:
    features = data["features"].astype(jnp.bfloat16 if row.half else jnp.float32)
    hidden = jnp.tanh(features @ weights["body"].astype(features.dtype))
    if row.dropout:
        hidden = jnp.where(jax.random.bernoulli(key, 1 - row.dropout, hidden.shape), hidden / (1 - row.dropout), 0)
    logits = (hidden @ weights["head"].astype(features.dtype)).astype(jnp.float32)
    return optax.ctc_loss(logits, data["frame_paddings"], data["labels"], data["label_paddings"])  # type: ignore[no-any-return]


def jax_batch(number: int) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(number)
    frames, counts = draws.integers(20, FRAMES + 1, (UTTERANCES, 1)), draws.integers(2, 7, (UTTERANCES, 1))
    return {
        "features": draws.normal(size=(UTTERANCES, FRAMES, FEATURES)).astype(np.float32),
        "frame_paddings": (np.arange(FRAMES)[None] >= frames).astype(np.float32),
        "labels": draws.integers(1, CLASSES, (UTTERANCES, 6)).astype(np.int32),
        "label_paddings": (np.arange(6)[None] >= counts).astype(np.float32),
    }


def in_jax(row: StepRow, settings: dict[str, Any] | None) -> tuple[Left, Any]:
    """Train as users do; with settings, under a guard."""
    seed()
    draws = np.random.default_rng(0)
    sizes = {"body": (FEATURES, 16), "head": (16, CLASSES)}
    weights: Any = {name: jnp.asarray(draws.normal(size=size) * 0.3, jnp.float32) for name, size in sizes.items()}
    adam = optax.MultiSteps(optax.adam(1e-2), row.accumulation) if row.accumulation > 1 else optax.adam(1e-2)
    state, printed, guard = adam.init(weights), [], None

    def reduced(weights: Any, data: Any, key: jax.Array) -> jax.Array:
        losses = jax_losses(weights, data, key, row)
        return losses.sum() if row.reduction == "sum" else losses.mean()

    def step(weights: Any, state: Any, data: Any, key: jax.Array) -> Any:
        loss, gradients = jax.value_and_grad(reduced)(weights, data, key)
        updates, state = adam.update(gradients, state, weights)
        return optax.apply_updates(weights, updates), state, loss

    compiled: Any = jax.jit(step, donate_argnums=(0, 1) if row.donated else ())
    evaluated = jax.jit(reduced)
    if settings is not None:
        compiled = guard = guard_step(compiled, **QUIET, **settings)
    for number in range(STEPS * row.accumulation):
        key = jax.random.fold_in(jax.random.key(3), number)
        weights, state, loss = compiled(weights, state, jax_batch(number), key)
        printed.append(float(loss))
        if row.evaluation and number % 5 == 4:
            printed.append(float(evaluated(weights, jax_batch(1000 + number), key)))
    if guard is not None:
        guard.close()
    return Left(jax.tree.leaves((weights, state)), printed, generators()), guard


@pytest.mark.parametrize("name", STEP_ROWS)
def test_a_step_of_jax(name: str) -> None:
    row = STEP_ROWS[name]
    plain, _ = in_jax(row, None)
    guarded, guard = in_jax(row, GUARDS[name.rpartition(", ")[2]])
    assert guard.findings == []
    assert guard.guard.calls == STEPS * row.accumulation
    assert guarded._replace(losses=plain.losses).same(plain)
    # XLA may add up a loss that is only printed in another order.
    np.testing.assert_allclose(guarded.losses, plain.losses, rtol=1e-6)
