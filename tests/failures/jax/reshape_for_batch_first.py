"""The recurrent layer works time first, and reshape makes it batch first again: every utterance is a mix of all.

report: https://runebook.dev/en/docs/pytorch/generated/torch.nn.functional.ctc_loss
record: batch-time-layout
expects: CTC801 reshape-instead-of-transpose at step 0
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def recurrent(params, xs):
    """From (time, batch, features) to (time, batch, units)."""

    def cell(h, x):
        z = jax.nn.sigmoid(x @ params["xz"] + h @ params["hz"])
        h = z * h + (1 - z) * jnp.tanh(x @ params["xh"] + h @ params["hh"])
        return h, h

    return jax.lax.scan(cell, jnp.zeros((xs.shape[1], params["hh"].shape[0])), xs)[1]


def network(params, batch):
    logits = recurrent(params, batch.swapaxes(0, 1)) @ params["out"]
    time, size, classes = logits.shape
    return logits.reshape(size, time, classes)  # right: return logits.transpose(1, 0, 2)


@jax.jit
def step(params, opt_state, batch, frame_paddings, labels):
    def loss(params):
        return optax.ctc_loss(network(params, batch), frame_paddings, labels, jnp.zeros(labels.shape)).mean()

    value, grads = jax.value_and_grad(loss)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value


rng = np.random.default_rng(5)
shapes = {"xz": (9, 16), "hz": (16, 16), "xh": (9, 16), "hh": (16, 16), "out": (16, 21)}
params = {name: jnp.asarray(rng.normal(0, 0.3, shape), jnp.float32) for name, shape in shapes.items()}
tx = optax.adam(1e-3)
opt_state = tx.init(params)
for i in range(4):
    frame_paddings = (np.arange(50) >= rng.integers(35, 51, (4, 1))).astype(np.float32)
    batch = rng.normal(size=(4, 50, 9)).astype(np.float32)
    params, opt_state, value = step(params, opt_state, batch, frame_paddings, rng.integers(1, 21, (4, 6)))
    print(i, value)
