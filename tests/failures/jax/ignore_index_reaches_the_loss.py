"""Labels padded with -100 for cross-entropy, and paddings that look for another value: -100 is counted as a label.

report: https://github.com/espnet/espnet/issues/863
record: espnet-huge-negative
expects: CTC202 ignore-index at step 0
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

rngs = nnx.Rngs(params=3)
PAD_ID = 0


def collate(examples):
    width = max(len(example["labels"]) for example in examples)
    labels = [list(example["labels"]) + [-100] * (width - len(example["labels"])) for example in examples]
    return np.stack([example["features"] for example in examples]), np.array(labels)


def compute_loss(graphdef, params, features, labels):
    model = nnx.merge(graphdef, params)
    paddings = (labels == PAD_ID).astype(jnp.float32)  # right: paddings = (labels < 0).astype(jnp.float32)
    logits = model(features)
    return optax.ctc_loss(logits, jnp.zeros(logits.shape[:-1]), labels, paddings, blank_id=PAD_ID).mean()


encoder = nnx.Sequential(
    nnx.Linear(13, 32, rngs=rngs), nnx.gelu, nnx.LayerNorm(32, rngs=rngs), nnx.Linear(32, 28, rngs=rngs)
)
graphdef, params = nnx.split(encoder)
tx = optax.lion(1e-4)
opt_state = tx.init(params)


@jax.jit
def train_step(params, opt_state, features, labels):
    loss, grads = jax.value_and_grad(compute_loss, argnums=1)(graphdef, params, features, labels)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, {"ctc": loss, "norm": optax.tree.norm(grads)}


generator = np.random.default_rng(8)
corpus = [
    {"features": generator.normal(size=(40, 13)).astype("f"), "labels": generator.integers(1, 28, 4 + i % 5)}
    for i in range(20)
]
for i in range(0, 20, 5):
    params, opt_state, metrics = train_step(params, opt_state, *collate(corpus[i : i + 5]))
    print({name: round(float(value), 2) for name, value in metrics.items()})
