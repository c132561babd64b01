"""Every frame is divided by its energy, and padded frames have none: NaN where the loss should not look, but does.

report: https://github.com/google-deepmind/optax/pull/293
record: optax-nan-in-padded-frames
expects: CTC502 padded-frames at step 0
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def normalised(frames):
    energy = jnp.sqrt(jnp.sum(jnp.square(frames), axis=-1, keepdims=True))
    return frames / energy  # right: return frames / jnp.maximum(energy, 1e-3)


def apply(weights, frames):
    hidden = jax.nn.softplus(jnp.dot(normalised(frames), weights[0]))
    return jnp.dot(hidden, weights[1])


def criterion(weights, frames, frame_paddings, labels, label_paddings):
    losses = optax.ctc_loss(apply(weights, frames), frame_paddings, labels, label_paddings)
    return jnp.sum(losses) / jnp.sum(1 - label_paddings)


def batches():
    rng = np.random.default_rng(94)
    for _ in range(3):
        frame_paddings = np.zeros((5, 40), np.float32)
        label_paddings = np.zeros((5, 8), np.float32)
        for row, (a, b) in enumerate(zip(rng.integers(24, 40, 5), rng.integers(4, 9, 5))):
            frame_paddings[row, a:], label_paddings[row, b:] = 1, 1
        frame_paddings[0] = 0
        frames = rng.normal(size=(5, 40, 12)).astype(np.float32) * (1 - frame_paddings[..., None])
        yield frames, frame_paddings, rng.integers(1, 18, (5, 8)), label_paddings


one, two = jax.random.split(jax.random.key(94))
weights = (jax.random.normal(one, (12, 24)), 0.2 * jax.random.normal(two, (24, 18)))
solver = optax.adamw(1e-3)
memory = solver.init(weights)
evaluate = jax.jit(jax.value_and_grad(criterion))
for batch in batches():
    value, slope = evaluate(weights, *batch)
    change, memory = solver.update(slope, memory, weights)
    weights = optax.apply_updates(weights, change)
    print(value)
