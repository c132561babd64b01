"""blank_id=len(vocabulary), and a head with an output for each character only.

report: https://github.com/PaddlePaddle/Paddle/issues/44489
record: paddle-blank-range
expects: CTC103 no-class-for-blank before training
raises: TypeError
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

vocabulary = "0123456789."
model = nnx.Sequential(
    nnx.Linear(8, 16, rngs=nnx.Rngs(0)),
    nnx.tanh,
    nnx.Linear(16, len(vocabulary), rngs=nnx.Rngs(1)),  # right: nnx.Linear(16, len(vocabulary) + 1, rngs=nnx.Rngs(1)),
)
optimizer = nnx.Optimizer(model, optax.sgd(1e-2), wrt=nnx.Param)


@nnx.jit
def train_step(model, optimizer, x, y):
    def loss_fn(model):
        logits = model(x)
        paddings = jnp.zeros(x.shape[:2]), jnp.zeros(y.shape)
        return optax.ctc_loss(logits, paddings[0], y, paddings[1], blank_id=len(vocabulary)).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


rng = np.random.default_rng(0)
for _ in range(3):
    meter = rng.integers(0, len(vocabulary), (4, 5))
    print(train_step(model, optimizer, jax.random.normal(jax.random.key(1), (4, 20, 8)), meter))
