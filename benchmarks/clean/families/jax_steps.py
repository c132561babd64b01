"""Training steps of JAX and Flax with optax, under ``guard_step``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.training.train_state import TrainState

from benchmarks.clean.corpus import Family, Losses
from benchmarks.clean.task import Speech

family = Family("jax", "JAX")
STEPS, FRAMES, LABELS, CLASSES = 60, 28, 5, 12
Data = dict[str, Any]
Guarding = Callable[[Callable[..., Any]], Any]


def batches(seed: int, blank: int = 0, silent: float = 0.0, size: int = 4, beyond: int = 0) -> Iterator[Data]:
    """Utterances of the lab in the shape of optax: batch first, static, with paddings; ``beyond`` pads the labels."""
    lab = Speech(seed, classes=CLASSES, blank=blank)
    for batch in lab.batches(STEPS, size=size, frames=FRAMES, labels=LABELS):
        counts = batch.target_lengths.numpy().copy()
        counts[np.random.default_rng(int(counts.sum()) + seed).random(size) < silent] = 0
        label_paddings = np.arange(LABELS)[None] >= counts[:, None]
        yield {
            "features": batch.features.transpose(0, 1).numpy(),
            "frame_paddings": (np.arange(FRAMES)[None] >= batch.input_lengths.numpy()[:, None]).astype(np.float32),
            "labels": np.where(label_paddings, beyond, batch.targets.numpy()).astype(np.int32),
            "label_paddings": label_paddings.astype(np.float32),
        }


def twice(data: Data) -> Data:
    """Every label has a neighbour that is equal."""
    return data | {"labels": np.repeat(data["labels"], 2, 1)[:, :LABELS]}


def filled(data: Data) -> Data:
    """A last batch of two utterances, filled up with nothing but padding to the static size of four."""
    rows = np.arange(len(data["labels"])) >= 2
    paddings = {name: np.where(rows[:, None], 1.0, data[name]) for name in ("frame_paddings", "label_paddings")}
    return data | paddings


def in_buckets(data: Data) -> Data:
    """One of three static shapes, for each of which the step is compiled."""
    more = 8 * (int(data["labels"].sum()) % 3)
    padded = np.pad(data["frame_paddings"], ((0, 0), (0, more)), constant_values=1.0)
    return data | {"features": np.pad(data["features"], ((0, 0), (0, more), (0, 0))), "frame_paddings": padded}


def on_the_left(data: Data, fills: bool = False) -> Data:
    """Padding before the frames, which this loss skips wherever it stands; the first utterance may fill the axis."""
    lengths = (1 - data["frame_paddings"]).sum(1).astype(int)
    rows = [np.roll(row, FRAMES - n, 0) for row, n in zip(data["features"], lengths, strict=True)]
    ahead = np.arange(FRAMES)[None] < FRAMES - lengths[:, None]
    ahead[0] &= not fills
    return data | {"features": np.stack(rows), "frame_paddings": ahead.astype(np.float32)}


def ctc(logits: jax.Array, data: Data, blank: int = 0) -> jax.Array:
    paddings = data["frame_paddings"], data["labels"], data["label_paddings"]
    return optax.ctc_loss(logits, *paddings, blank_id=blank)


# ------------------------------------------------------------------------------------------------------ plain functions


def weights(seed: int) -> dict[str, jax.Array]:
    random = np.random.default_rng(seed)
    sizes = {"body": (8, 32), "head": (32, CLASSES)}
    return {name: jnp.asarray(random.normal(size=size) / size[0] ** 0.5, jnp.float32) for name, size in sizes.items()}


def logits_of(parameters: Any, features: jax.Array, dtype: Any = jnp.float32) -> jax.Array:
    hidden = jnp.tanh(features.astype(dtype) @ parameters["body"].astype(dtype))
    return hidden @ parameters["head"].astype(dtype)


Loss = Callable[[Any, Data], jax.Array]


def mean(parameters: Any, data: Data) -> jax.Array:
    return ctc(logits_of(parameters, data["features"]), data).mean()


def per_label(parameters: Any, data: Data) -> jax.Array:
    return ctc(logits_of(parameters, data["features"]), data).sum() / (1 - data["label_paddings"]).sum()


def per_frame(parameters: Any, data: Data) -> jax.Array:
    losses = ctc(logits_of(parameters, data["features"]), data)
    return (losses / (1 - data["frame_paddings"]).sum(1)).mean()


def in_bfloat16(parameters: Any, data: Data) -> jax.Array:
    return ctc(logits_of(parameters, data["features"], jnp.bfloat16).astype(jnp.float32), data).mean()


def log_softmax_first(parameters: Any, data: Data) -> jax.Array:
    return ctc(jax.nn.log_softmax(logits_of(parameters, data["features"])), data).mean()


def log_of_softmax_first(parameters: Any, data: Data) -> jax.Array:
    """As Keras does it in front of a loss that has a softmax."""
    return ctc(jnp.log(jax.nn.softmax(logits_of(parameters, data["features"])) + 1e-7), data).mean()


def with_entropy(parameters: Any, data: Data) -> jax.Array:
    logits = logits_of(parameters, data["features"])
    log_probs = jax.nn.log_softmax(logits)
    return ctc(logits, data).mean() + 20 * (jnp.exp(log_probs) * log_probs).sum(-1).mean()


def two_heads(parameters: Any, data: Data) -> jax.Array:
    """The same scores twice, in fewer classes the second time."""
    logits = logits_of(parameters, data["features"])
    few = data | {"labels": 1 + data["labels"] % 5}
    return ctc(logits, data).mean() + 0.5 * ctc(logits[..., :6], few).mean()


def forward_probs(parameters: Any, data: Data) -> jax.Array:
    paddings = data["frame_paddings"], data["labels"], data["label_paddings"]
    losses, _, _ = optax.losses.ctc_loss_with_forward_probs(logits_of(parameters, data["features"]), *paddings)
    return losses.mean()


def one_by_one(parameters: Any, data: Data) -> jax.Array:
    one = partial(jax.tree.map, lambda x: x[None])
    return jax.vmap(lambda item: mean(parameters, one(item)))(data).mean()


def recomputed(parameters: Any, data: Data) -> jax.Array:
    return jax.checkpoint(mean)(parameters, data)


def logits_in_bfloat16(parameters: Any, data: Data) -> jax.Array:
    """The loss itself is computed from bfloat16."""
    return ctc(logits_of(parameters, data["features"], jnp.bfloat16), data).mean()


def blank_last(parameters: Any, data: Data) -> jax.Array:
    return ctc(logits_of(parameters, data["features"]), data, CLASSES - 1).mean()


def plain(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    change: Callable[[Data], Data] = lambda data: data,
    **shape: Any,
) -> Callable[[int, Guarding], Losses]:
    def train(seed: int, guarding: Guarding) -> Losses:
        parameters = weights(seed)
        state = optimizer.init(parameters)

        @guarding
        @jax.jit
        def step(parameters: Any, state: Any, data: Data) -> Any:
            value, gradients = jax.value_and_grad(loss)(parameters, data)
            updates, state = optimizer.update(gradients, state, parameters)
            return optax.apply_updates(parameters, updates), state, value

        for data in batches(seed, **shape):
            parameters, state, value = step(parameters, state, change(data))
            yield float(value)

    return train


ADAM = optax.adam(1e-2)
LOSSES: dict[str, Loss] = {
    "mean": mean,
    "sum over labels": per_label,
    "own mean over time": per_frame,
    "logits in bfloat16": in_bfloat16,
    "log_softmax before a loss that has it": log_softmax_first,
    "log(softmax + 1e-7) before a loss that has one": log_of_softmax_first,
    "entropy, the total is negative": with_entropy,
    "two CTC losses": two_heads,
    "loss with forward probabilities": forward_probs,
    "vmap over utterances": one_by_one,
    "checkpointed": recomputed,
}
for name, loss in LOSSES.items():
    family.add(name, plain(loss, ADAM), seeds=2)
family.add("blank last", plain(blank_last, ADAM, blank=CLASSES - 1), seeds=2)
family.add("blank last, silent clips", plain(blank_last, ADAM, blank=CLASSES - 1, silent=0.2), seeds=2)
family.add("silent clips", plain(mean, ADAM, silent=0.2, size=6), seeds=2)
family.add("labels of -1 under the paddings", plain(mean, ADAM, beyond=-1), seeds=2)
family.add("labels of 99 under the paddings", plain(mean, ADAM, beyond=99), seeds=2)
family.add("bfloat16 logits into the loss", plain(logits_in_bfloat16, ADAM), seeds=4)
family.add("bfloat16 logits into the loss, double letters", plain(logits_in_bfloat16, ADAM, change=twice), seeds=4)
family.add("buckets of three static shapes", plain(mean, ADAM, change=in_buckets), seeds=2)
family.add("items that only fill the batch", plain(mean, ADAM, change=filled), seeds=2)
family.add("padded on the left, to the longest", plain(mean, ADAM, change=partial(on_the_left, fills=True)), seeds=2)
family.add("padded on the left, to a static shape", plain(mean, ADAM, change=on_the_left), seeds=2)
family.add("one utterance a batch", plain(mean, ADAM, size=1), seeds=2)

OPTIMIZERS: dict[str, optax.GradientTransformation] = {
    "warm-up and cosine": optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 3e-2, 10, STEPS)),
    "restarts": optax.adam(
        optax.sgdr_schedule(
            [{"init_value": 0.0, "peak_value": 3e-2, "decay_steps": 20, "warmup_steps": 3, "end_value": 0.0}] * 3
        )
    ),
    "one cycle": optax.sgd(optax.linear_onecycle_schedule(STEPS, 0.05), momentum=0.9),
    "clipped, with noise": optax.chain(
        optax.clip_by_global_norm(0.5), optax.add_noise(0.01, 0.5, 0), optax.adam(1e-2)
    ),
    "a head that alone learns": optax.multi_transform(
        {"learn": optax.adam(1e-2), "rest": optax.set_to_zero()}, {"body": "rest", "head": "learn"}
    ),
    "updates of NaN would be skipped": optax.apply_if_finite(optax.adam(1e-2), 3),
}  # fmt: skip
for name, optimizer in OPTIMIZERS.items():
    family.add(name, plain(mean, optimizer), seeds=2)


@family("gathered over four micro-batches in a scan", seeds=2)
def scanned(seed: int, guarding: Guarding) -> Losses:
    parameters = weights(seed)
    state = ADAM.init(parameters)

    @guarding
    @jax.jit
    def step(parameters: Any, state: Any, data: Data) -> Any:
        def body(total: Any, part: Data) -> Any:
            value, gradients = jax.value_and_grad(mean)(parameters, part)
            return jax.tree.map(lambda a, b: a + b / 4, total, gradients), value

        parts = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), data)
        gradients, values = jax.lax.scan(body, jax.tree.map(jnp.zeros_like, parameters), parts)
        updates, state = ADAM.update(gradients, state, parameters)
        return optax.apply_updates(parameters, updates), state, values.mean()

    for data in batches(seed, size=8):
        parameters, state, value = step(parameters, state, data)
        yield float(value)


# ----------------------------------------------------------------------------------------------------------------- Flax


class Linen(flax.linen.Module):
    """A convolution over time, a hidden layer, a head."""

    @flax.linen.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        hidden = flax.linen.relu(flax.linen.Conv(24, (3,))(features))
        hidden = flax.linen.Dropout(0.1, deterministic=not train)(flax.linen.LayerNorm()(hidden))
        return flax.linen.Dense(CLASSES)(hidden)


@family("Flax, a TrainState, dropout", seeds=2)
def linen(seed: int, guarding: Guarding) -> Losses:
    net = Linen()
    source = batches(seed)
    variables = net.init(jax.random.key(seed), jnp.zeros((1, FRAMES, 8)), False)
    state = TrainState.create(apply_fn=net.apply, params=variables["params"], tx=ADAM)

    @guarding
    @jax.jit
    def step(state: TrainState, data: Data, key: jax.Array) -> Any:
        def loss(params: Any) -> jax.Array:
            rngs = {"dropout": key}
            return ctc(state.apply_fn({"params": params}, data["features"], True, rngs=rngs), data).mean()

        value, gradients = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=gradients), value

    for number, data in enumerate(source):
        state, value = step(state, data, jax.random.fold_in(jax.random.key(seed), number))
        yield float(value)


class Recurrent(nnx.Module):
    """A GRU and a head."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.layer = nnx.RNN(nnx.GRUCell(8, 24, rngs=rngs))
        self.head = nnx.Linear(24, CLASSES, rngs=rngs)

    def __call__(self, features: jax.Array) -> jax.Array:
        return self.head(self.layer(features))


def with_nnx(change: Callable[[Data], Data] = lambda data: data) -> Callable[[int, Guarding], Losses]:
    def train(seed: int, guarding: Guarding) -> Losses:
        net = Recurrent(nnx.Rngs(seed))
        optimizer = nnx.Optimizer(net, optax.adam(2e-2), wrt=nnx.Param)

        @guarding
        @nnx.jit
        def step(net: Recurrent, optimizer: Any, data: Data) -> jax.Array:
            value, gradients = nnx.value_and_grad(lambda model: ctc(model(data["features"]), data).mean())(net)
            optimizer.update(net, gradients)
            return value

        for data in batches(seed):
            yield float(step(net, optimizer, change(data)))

    return train


family.add("Flax nnx, a GRU, nnx.jit", with_nnx(), seeds=2)
family.add("Flax nnx, a GRU, padded on the left, to a static shape", with_nnx(on_the_left), seeds=4)
