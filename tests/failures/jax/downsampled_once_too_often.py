"""The lengths of the encoder are divided by its downsampling factor once more: half of every clip is never aligned.

report: https://github.com/k2-fsa/icefall/issues/2042
record: icefall-crctc-grad-scale
expects: CTC304 subsampled-twice at step 7
"""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


class Zipper(nnx.Module):
    def __init__(self, rngs, dim=24, factor=2):
        self.embed = nnx.Linear(16, dim, rngs=rngs)
        self.out = nnx.Linear(factor * dim, 26, rngs=rngs)
        self.factor = factor

    def __call__(self, x, x_lens):
        x = nnx.swish(self.embed(x))
        n, t, c = x.shape
        x = x.reshape(n, t // self.factor, self.factor * c)
        return self.out(x), x_lens // self.factor


@nnx.jit
def train_one_batch(model, optimizer, x, x_lens, y, y_lens):
    def compute_loss(model):
        logits, lens = model(x, x_lens)
        lens = lens // model.factor  # right:
        beyond = jnp.arange(logits.shape[1]) >= lens[:, None]
        unused = jnp.arange(y.shape[1]) >= y_lens[:, None]
        return optax.ctc_loss(logits, beyond.astype(logits.dtype), y, unused.astype(logits.dtype)).sum()

    loss, grads = nnx.value_and_grad(compute_loss)(model)
    optimizer.update(model, grads)
    return loss


rng = np.random.default_rng(2042)
model = Zipper(nnx.Rngs(42))
optimizer = nnx.Optimizer(model, optax.adamw(1e-3), wrt=nnx.Param)
for i in range(9):
    width = (96, 64, 80)[i % 3]  # dynamic batches
    x_lens = np.sort(rng.integers(width // 2, width, 5))
    x_lens[-1] = width
    y_lens = rng.integers(2, 6, 5)
    x = rng.normal(size=(5, width, 16)).astype(np.float32)
    print(i, train_one_batch(model, optimizer, x, x_lens, rng.integers(1, 26, (5, 6)), y_lens))
