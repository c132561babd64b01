"""Every label row is said to be as long as the padded width: its zeros are trained as blanks, and do not even fit.

report: https://github.com/PaddlePaddle/Paddle/issues/22923
record: warpctc-zero-loss-infeasible
expects: CTC203 padding-counted at step 0
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

rng = np.random.default_rng(22923)
T, CLASSES, MAX_LABEL = 30, 65, 28


def reader():
    for _ in range(4):
        lengths = rng.integers(4, 15, 6)
        label = np.zeros((6, MAX_LABEL), dtype=np.int32)
        for row, length in zip(label, lengths):
            row[:length] = rng.integers(1, CLASSES, length)
        label_length = np.full(6, MAX_LABEL)  # right: label_length = lengths
        yield rng.random((6, T, 12), dtype=np.float32), label, label_length


def network(weights, image):
    hidden = jnp.tanh(jnp.einsum("btf,fh->bth", image, weights[0]))
    return jnp.einsum("bth,hk->btk", hidden, weights[1])


@jax.jit
def train(weights, image, label, label_length):
    def cost(weights):
        past_end = jnp.arange(MAX_LABEL) >= label_length[:, None]
        logits = network(weights, image)
        return optax.ctc_loss(logits, jnp.zeros((len(label), T)), label, past_end.astype("float32")).mean()

    value, slope = jax.value_and_grad(cost)(weights)
    return [w - 0.01 * g for w, g in zip(weights, slope)], value


weights = [rng.normal(0, 0.1, shape).astype(np.float32) for shape in ((12, 32), (32, CLASSES))]
for image, label, label_length in reader():
    weights, value = train(weights, image, label, label_length)
    print("cost", value)
