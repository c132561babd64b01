"""A model with 32 outputs and a tokenizer of 40, inside jax.checkpoint and a scan over accumulated batches.

report: https://github.com/sanchit-gandhi/seq2seq-speech/pull/36
record: vocab-mismatch-flax-negative-loss
expects: CTC201 label-beyond-head at step 0
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

TOKENIZER_SIZE = 40


class Config(NamedTuple):
    vocab_size: int = 32  # right: vocab_size: int = TOKENIZER_SIZE
    hidden_size: int = 24
    layers: int = 3


class Batch(NamedTuple):
    features: jax.Array
    labels: jax.Array


def init(key, config):
    ks = jax.random.split(key, 2)
    width = config.hidden_size
    return {
        "blocks": jax.random.normal(ks[0], (config.layers, width, width)) / width**0.5,
        "lm_head": jax.random.normal(ks[1], (width, config.vocab_size)) / width**0.5,
    }


@partial(jax.checkpoint, prevent_cse=False)
def block(x, kernel):
    return x + jax.nn.gelu(x @ kernel), None


@jax.checkpoint
def loss_fn(params, batch):
    hidden, _ = jax.lax.scan(block, batch.features, params["blocks"])
    logits = hidden @ params["lm_head"]
    paddings = (batch.labels == 0).astype(jnp.float32)
    return optax.ctc_loss(logits, jnp.zeros(logits.shape[:2]), batch.labels, paddings).mean()


@jax.jit
def train_step(params, state, batches):
    def accumulate(grads, batch):
        loss, more = jax.value_and_grad(loss_fn)(params, batch)
        return jax.tree.map(jnp.add, grads, more), loss

    grads, losses = jax.lax.scan(accumulate, jax.tree.map(jnp.zeros_like, params), batches)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, losses.mean()


config = Config()
params = init(jax.random.key(36), config)
optimizer = optax.adamw(1e-4)
state = optimizer.init(params)
rng = np.random.default_rng(28)
for step in range(3):
    labels = rng.integers(4, TOKENIZER_SIZE, (3, 4, 9))
    labels[:, :, 7:] = 0
    batches = Batch(rng.normal(size=(3, 4, 32, config.hidden_size)).astype(np.float32), labels)
    params, state, loss = train_step(params, state, batches)
    print(loss)
