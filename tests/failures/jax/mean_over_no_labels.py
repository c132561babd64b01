"""Losses are divided by the number of labels, and cleaning left one transcript without any: the weights become NaN.

report: https://github.com/sanchit-gandhi/seq2seq-speech/commit/60c7c71ffa4529edc91f03ef13eaac2d7ac6f712
record: jax-empty-label-div0
expects: CTC403 whole-batch at step 2
"""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

FILLERS = re.compile(r"\b(uh|um|hmm|mhm)\b")
ted = [
    "so um this is it", "we tried it all", "and it worked", "uh not at once", "you know why", "hmm", "one more thing",
    "it takes time", "uh some of you", "raise a hand", "that many", "thank you all",
]  # fmt: skip
texts = [FILLERS.sub("", line).strip() for line in ted]
min_label_length = 0  # right: min_label_length = 2
texts = [text for text in texts if len(text) >= min_label_length] + ["well good night"]
letters = " abcdefghijklmnopqrstuvwxyz"


class Wav2Vec(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(len(letters) + 1)(nn.LayerNorm()(nn.gelu(nn.Dense(32)(x))))


def ctc_loss(logits, labels):
    paddings = (labels == -100).astype(jnp.float32)
    target_lengths = jnp.sum(1 - paddings, axis=-1)
    frames = jnp.zeros(logits.shape[:2])
    per_sequence = optax.ctc_loss(logits, frames, jnp.where(labels < 0, 0, labels), paddings)
    return jnp.mean(per_sequence / target_lengths)


@jax.jit
def train_step(state, inputs, labels):
    def loss_fn(params):
        return ctc_loss(state.apply_fn(params, inputs), labels)

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss


model = Wav2Vec()
state = TrainState.create(
    apply_fn=model.apply, params=model.init(jax.random.key(60), jnp.ones((1, 40, 8))), tx=optax.adamw(1e-4)
)
for i in range(0, 12, 3):
    labels = np.full((3, 20), -100)
    for row, text in zip(labels, texts[i : i + 3]):
        row[: len(text)] = [letters.index(c) + 1 for c in text]
    state, loss = train_step(state, jax.random.normal(jax.random.key(i), (3, 40, 8)), labels)
    print(f"Step {i // 3}: loss {loss}")
