"""Samples of a wave file, not divided by 32768, before a layer in float16: its outputs overflow to infinity.

report: https://github.com/burchim/EfficientConformer/issues/17
record: half-precision-nan
expects: CTC403 overflow at step 0
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

rng = np.random.default_rng(17)


class LinearProbe(nn.Module):
    classes: int
    frame: int = 64

    @nn.compact
    def __call__(self, pcm):
        frames = pcm.reshape(pcm.shape[0], -1, self.frame)
        logits = nn.Dense(self.classes, dtype=jnp.float16)(frames)
        return logits.astype(jnp.float32)  # the loss itself is computed in full precision


def read(count, samples=2560):
    loud = rng.normal(0, 40_000, (count, samples)).clip(-32_768, 32_767).astype(np.int16)
    return loud.astype(np.float32)  # right: return loud.astype(np.float32) / 32_768


probe = LinearProbe(classes=30)
targets = rng.integers(1, 30, (12, 6))
params = probe.init(jax.random.key(0), jnp.zeros((1, 2560)))
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
opt_state = optimizer.init(params)


@jax.jit
def update(params, opt_state, pcm, labels):
    def loss_fn(params):
        logits = probe.apply(params, pcm)
        return jnp.mean(optax.ctc_loss(logits, jnp.zeros(logits.shape[:2]), labels, jnp.zeros(labels.shape)))

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = optimizer.update(grads, opt_state)
    return optax.apply_updates(params, updates), opt_state, loss


for at in range(0, 12, 4):
    params, opt_state, loss = update(params, opt_state, read(4), targets[at : at + 4])
    print(loss)
