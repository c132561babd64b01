"""The decoder takes the last class for the blank, the loss its default, class 0: the vocabulary has it at the end.
So do tf.nn.ctc_loss (0) and tf.nn.ctc_greedy_decoder (the last one) together; here it is optax.

report: https://github.com/tensorflow/tensorflow/issues/42140
record: tf-blank-default-conflict
expects: CTC102 other-blank before training
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ctcguard

vocabulary = [*"0123456789", "+", "-", "=", "<blank>"]
BLANK = vocabulary.index("<blank>")


def greedy(logits):
    best = np.asarray(logits.argmax(-1))
    kept = [[a for a, b in zip(row, np.append(row[1:], -1)) if a != b and a != BLANK] for row in best]
    return ["".join(vocabulary[i] for i in row) for row in kept]


def forward(params, lines):
    x = lines
    for layer in params[:-1]:
        x = jax.nn.leaky_relu(x @ layer["kernel"] + layer["bias"])
    return x @ params[-1]["kernel"] + params[-1]["bias"]


@partial(jax.jit, donate_argnums=(0, 1))
def train_step(params, moments, lines, labels):
    def loss_fn(params):
        logits = forward(params, lines)
        frames, rows = jnp.zeros(logits.shape[:2]), jnp.zeros(labels.shape)
        losses = optax.ctc_loss(
            logits,
            frames,
            labels,
            rows,
            # right: blank_id=BLANK,
        )
        return losses.mean()

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, moments = optimizer.update(grads, moments, params)
    return optax.apply_updates(params, updates), moments, loss


rng = np.random.default_rng(42140)
sizes = [16, 32, len(vocabulary)]
params = [
    {"kernel": jnp.asarray(rng.normal(0, i**-0.5, (i, o)), jnp.float32), "bias": jnp.zeros(o)}
    for i, o in zip(sizes, sizes[1:])
]
optimizer = optax.adam(2e-3)
moments = optimizer.init(params)
step = ctcguard.guard_step(train_step, vocabulary=vocabulary)
for n in range(4):
    lines = rng.random((5, 36, 16), dtype=np.float32)
    sums = [f"{a}+{b}={a + b}" for a, b in rng.integers(5, 50, (5, 2))]
    labels = np.array([[vocabulary.index(c) for c in text.rjust(8, "0")] for text in sums])
    params, moments, loss = step(params, moments, lines, labels)
print(loss, greedy(forward(params, lines)))
step.close()
