"""Class 0 is the space between words, and optax takes class 0 for the blank: targets are full of blanks.

report: https://github.com/yl4579/AuxiliaryASR/issues/4
record: blank-eq-space-auxasr
expects: CTC102 ordinary-symbol before training
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state

import ctcguard

symbols = list(" abcdefghijklmnopqrstuvwxyz.,?!")  # right: symbols = ["<blank>", *" abcdefghijklmnopqrstuvwxyz.,?!"]
word_index = {symbol: index for index, symbol in enumerate(symbols)}
texts = [
    "hello there.", "is it you?", "no, not me!", "come on in.", "what a day!", "well, well.", "so it is.", "and you?",
]  # fmt: skip


class Aligner(nn.Module):
    @nn.compact
    def __call__(self, mel):
        x = nn.Conv(24, kernel_size=(5,))(mel)
        x = nn.GroupNorm(num_groups=4)(x)
        return nn.Dense(len(symbols))(nn.relu(x))


def batches(steps):
    rng = np.random.default_rng(4579)
    for _ in range(steps):
        chosen = rng.choice(texts, 4, replace=False)
        ids = np.zeros((4, 14), np.int32)
        paddings = np.ones((4, 14), np.float32)
        for row, padding, text in zip(ids, paddings, chosen):
            row[: len(text)] = [word_index[letter] for letter in text]
            padding[: len(text)] = 0
        yield rng.normal(size=(4, 48, 20)).astype(np.float32), ids, paddings


model = Aligner()
params = model.init(jax.random.PRNGKey(0), jnp.ones((1, 48, 20)))["params"]
state = train_state.TrainState.create(apply_fn=model.apply, params=params, tx=optax.adamw(1e-4))


def train_step(state, mel, ids, paddings):
    def loss_fn(params):
        ppgs = state.apply_fn({"params": params}, mel)
        return optax.ctc_loss(ppgs, jnp.zeros(ppgs.shape[:2]), ids, paddings).mean()

    loss_ctc, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss_ctc


train_step = ctcguard.guard_step(jax.jit(train_step), vocabulary=symbols)
for mel, ids, paddings in batches(4):
    state, loss_ctc = train_step(state, mel, ids, paddings)
    print("train/ctc", loss_ctc)
train_step.close()
