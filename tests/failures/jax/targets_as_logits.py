"""One-hot rows handed over as logits, to see the loss at 0: it is far from it, and sharpening them has no effect.

report: https://github.com/tensorflow/tensorflow/issues/41353
record: tf-loss-not-zero-expected
expects: CTC404 softmax-before-loss at step 0
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

CLASSES = 6
rng = np.random.default_rng(41353)
labels = np.array([[1, 2, 1], [3, 5, 4], [2, 4, 2]])
alignment = np.array([[0, 1, 1, 0, 2, 0, 0, 1, 0, 0], [3, 0, 5, 5, 0, 0, 4, 4, 0, 0], [0, 2, 0, 4, 4, 0, 2, 0, 0, 0]])
SHARP = 1  # right: SHARP = 25
reference = SHARP * jax.nn.one_hot(alignment, CLASSES)
no_paddings = jnp.zeros(alignment.shape), jnp.zeros(labels.shape)


@jax.jit
def loss_of(logits, labels):
    return optax.ctc_loss(logits, no_paddings[0], labels, no_paddings[1])


for _ in range(3):
    order = rng.permutation(len(labels))
    print("should be 0:", loss_of(reference[order], labels[order]))
