"""A filter that counts labels, but not the blanks that equal neighbours need between them: optax charges 1e5 for each.

report: https://github.com/apple/axlearn/pull/211
record: optax-logeps-finite-infeasible
expects: CTC301 repeats at step 1
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import jax_utils
from flax.training import common_utils, train_state

DOWNSAMPLING = 4
VOCABULARY = " abcdefghijklmnopqrstuvwxyz"
corpus = [
    ("to be", 40), ("or not", 44), ("that is", 48), ("the query", 60), ("nobler", 44), ("in mind", 48),
    ("committee", 40), ("arrows", 44), ("of fate", 48), ("or take", 52), ("arms", 32), ("a sea", 40),
]  # fmt: skip


def fits(text, frames):
    needed = len(text)
    # right: needed += sum(a == b for a, b in zip(text, text[1:]))
    return frames // DOWNSAMPLING >= needed


class Subsampled(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(32, (3,), strides=(2,))(x))
        x = nn.relu(nn.Conv(32, (3,), strides=(2,))(x))
        return nn.Dense(len(VOCABULARY) + 1)(x)


def collate(items, rng, width=64, room=10):
    features = np.zeros((len(items), width, 16), np.float32)
    paddings = np.ones((len(items), width // DOWNSAMPLING), np.float32)
    targets = np.zeros((len(items), room), np.int32)
    target_paddings = np.ones((len(items), room), np.float32)
    for i, (text, frames) in enumerate(items):
        features[i, :frames] = rng.normal(size=(frames, 16))
        paddings[i, : frames // DOWNSAMPLING] = 0
        targets[i, : len(text)] = [VOCABULARY.index(c) + 1 for c in text]
        target_paddings[i, : len(text)] = 0
    return dict(features=features, paddings=paddings, targets=targets, target_paddings=target_paddings)


@partial(jax.pmap, axis_name="batch", donate_argnums=0)
def train_step(state, batch):
    def loss_fn(params):
        logits = state.apply_fn({"params": params}, batch["features"])
        per_example = optax.ctc_loss(logits, batch["paddings"], batch["targets"], batch["target_paddings"])
        return per_example.mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    state = state.apply_gradients(grads=jax.lax.pmean(grads, "batch"))
    return state, jax.lax.pmean({"loss": loss}, "batch")


rng = np.random.default_rng(211)
model = Subsampled()
state = train_state.TrainState.create(
    apply_fn=model.apply, params=model.init(jax.random.key(0), jnp.ones((1, 64, 16)))["params"], tx=optax.adam(1e-3)
)
state = jax_utils.replicate(state)
kept = [item for item in corpus if fits(*item)]
for first in range(0, 12, 4):
    items = (kept + corpus)[first : first + 4]
    state, metrics = train_step(state, common_utils.shard(collate(items, rng)))
    print(jax_utils.unreplicate(metrics))
