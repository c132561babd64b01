"""A loss that took probabilities was replaced by one that takes logits; the call still hands probabilities over.

report: https://github.com/PaddlePaddle/Paddle/pull/33291
record: paddle-logits-vs-logprobs
expects: CTC404 softmax-before-loss at step 0
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx


class Head(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(14, 28, rngs=rngs), nnx.Linear(28, 33, rngs=rngs)])

    def __call__(self, x):
        return self.layers[1](nnx.relu(self.layers[0](x)))

    def probabilities(self, x):
        return jax.nn.softmax(self(x))


def loss_fn(model, x, x_paddings, y, y_paddings):
    scores = model.probabilities(x)  # right: scores = model(x)
    return optax.ctc_loss(scores, x_paddings, y, y_paddings).mean()


@nnx.jit
def train_step(model, optimizer, micro_batches):
    """Gradients of several micro-batches are gathered in a scan."""
    graphdef, params = nnx.split(model)

    def one(total, batch):
        loss, grads = jax.value_and_grad(lambda params: loss_fn(nnx.merge(graphdef, params), *batch))(params)
        return jax.tree.map(jnp.add, total, grads), loss

    grads, losses = jax.lax.scan(one, jax.tree.map(jnp.zeros_like, params), micro_batches)
    optimizer.update(model, grads)
    return losses.mean()


model = Head(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)
rng = np.random.default_rng(33291)
for step in range(3):
    x = rng.normal(size=(2, 4, 30, 14)).astype(np.float32)
    y = rng.integers(1, 33, (2, 4, 6))
    x_paddings, y_paddings = np.zeros(x.shape[:3], np.float32), np.zeros(y.shape, np.float32)
    print(step, train_step(model, optimizer, (x, x_paddings, y, y_paddings)))
