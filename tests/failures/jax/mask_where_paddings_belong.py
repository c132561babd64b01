"""The mask of the encoder is handed over where the loss wants paddings: real frames are skipped, padding is aligned.
The report is of lengths in each other's place; optax takes paddings, and the same slip is a mask.

report: https://github.com/baidu-research/warp-ctc/issues/52
record: warpctc-arg-order
expects: CTC302 inverted-paddings at step 0
"""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


class Encoder(nnx.Module):
    def __init__(self, rngs):
        self.proj = nnx.Linear(20, 32, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 32, decode=False, rngs=rngs)
        self.head = nnx.Linear(32, 30, rngs=rngs)

    def __call__(self, x, mask):
        x = self.proj(x)
        x = x + self.attention(x, mask=mask[:, None, None, :])
        return self.head(x)


def features(rng, batch=5, width=40):
    lengths = rng.integers(22, width - 2, batch)
    mask = np.arange(width) < lengths[:, None]
    return rng.normal(size=(batch, width, 20)).astype(np.float32) * mask[..., None], mask


@nnx.jit
def step(model, optimizer, x, mask, y):
    def loss_fn(model):
        logits = model(x, mask)
        flags = mask.astype(jnp.float32)  # right: flags = 1.0 - mask.astype(jnp.float32)
        return optax.ctc_loss(logits, flags, y, jnp.zeros(y.shape)).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


model = Encoder(nnx.Rngs(52))
optimizer = nnx.Optimizer(model, optax.adam(3e-4), wrt=nnx.Param)
rng = np.random.default_rng(52)
for _ in range(4):
    print(step(model, optimizer, *features(rng), rng.integers(1, 30, (5, 6))))
