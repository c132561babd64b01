"""Ids at or above vocab_size are taken for padding: one in the middle of a target, and optax reads the wrong labels.

report: https://github.com/apple/axlearn/pull/211
record: axlearn-oov-is-padding
expects: CTC303 not-right-padded at step 0
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

PIECES = 48
PADDING_ID = 10_000
vocab_size = 40  # right: vocab_size = PIECES


def target_paddings(labels):
    """Out of range means padding or end of sentence."""
    return ((labels < 0) | (labels >= vocab_size)).astype(jnp.float32)


def encode(params, x):
    x = jax.nn.gelu(x @ params["up"])
    return x @ params["down"]


def loss_fn(params, batch):
    logits = encode(params, batch["speech"])
    paddings = target_paddings(batch["target"]["labels"])
    labels = jnp.where(paddings == 1, 0, batch["target"]["labels"])
    losses = optax.ctc_loss(logits, batch["speech_paddings"], labels, paddings)
    return losses.sum() / logits.shape[0], losses


@jax.jit
def train_step(params, learner, batch):
    (loss, _), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch)
    updates, learner = tx.update(grads, learner, params)
    return optax.apply_updates(params, updates), learner, loss


def input_batches(seed=0):
    rng = np.random.default_rng(seed)
    while True:
        counts = rng.integers(5, 11, 6)
        labels = rng.integers(1, PIECES, (6, 12))
        labels[np.arange(12) >= counts[:, None]] = PADDING_ID
        yield {
            "speech": rng.normal(size=(6, 36, 16)).astype(np.float32),
            "speech_paddings": np.zeros((6, 36), np.float32),
            "target": {"labels": labels},
        }


key = jax.random.key(0)
params = {"up": jax.random.normal(key, (16, 32)) * 0.2, "down": jax.random.normal(key, (32, PIECES)) * 0.1}
tx = optax.adafactor(1e-3)
learner = tx.init(params)
for step, batch in zip(range(3), input_batches()):
    params, learner, loss = train_step(params, learner, batch)
    print(step, loss)
