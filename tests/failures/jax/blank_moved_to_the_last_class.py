"""Labels counted from 1, as the old operator wanted them, and the blank of the new one, the last class: Z is the blank.

report: https://github.com/apache/mxnet/pull/7727
record: mxnet-blank-switch
expects: CTC203 blank-index at step 0
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
words = ["ZEBRA", "PIZZA", "OXEN", "QUIZ", "LAZY", "JAZZY", "MAZE", "FUZZ"]


def to_ids(word):
    return [ALPHABET.index(letter) + 1 for letter in word]  # right: return [ALPHABET.index(letter) for letter in word]


def pad(rows, width=6):
    ids, paddings = np.zeros((len(rows), width), int), np.ones((len(rows), width))
    for i, row in enumerate(rows):
        ids[i, : len(row)], paddings[i, : len(row)] = row, 0
    return ids, paddings


class Net:
    """One hidden layer, by hand."""

    def init(self, key, features=10, hidden=20, classes=len(ALPHABET) + 1):
        a, b = jax.random.split(key)
        return {
            "in": jax.random.normal(a, (features, hidden)) / features**0.5,
            "out": jax.random.normal(b, (hidden, classes)) / hidden**0.5,
        }

    def __call__(self, p, x):
        return jax.nn.silu(x @ p["in"]) @ p["out"]


net = Net()
blank = len(ALPHABET)


def batch_loss(p, x, ids, paddings):
    logits = net(p, x)
    return optax.ctc_loss(logits, jnp.zeros(logits.shape[:2]), ids, paddings, blank_id=blank).mean()


p = net.init(jax.random.key(0))
optimizer = optax.rmsprop(1e-3)
s = optimizer.init(p)
grad = jax.jit(jax.value_and_grad(batch_loss))
labels, label_paddings = pad([to_ids(word) for word in words])
for t in range(3):
    x = jax.random.normal(jax.random.key(t), (len(words), 24, 10))
    value, g = grad(p, x, labels, label_paddings)
    updates, s = optimizer.update(g, s)
    p = optax.apply_updates(p, updates)
    print(t, value)
