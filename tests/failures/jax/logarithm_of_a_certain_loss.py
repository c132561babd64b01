"""A loss balancer takes log(loss + 1e-8), and float32 rounds the loss of a certain model below 0: weights become NaN.

report: https://github.com/google-deepmind/optax/issues/1771
record: optax-fp32-negative
expects: CTC403 whole-batch at step 1
"""

import jax
import jax.numpy as jnp
import optax


def balanced(*losses):
    """The larger a loss, the more it counts."""
    losses = jnp.stack(losses)
    logs = jnp.log(losses + 1e-8)  # right: logs = jnp.log(jnp.maximum(losses, 0) + 1e-8)
    return jax.lax.stop_gradient(jax.nn.softmax(0.5 * logs)) @ losses


@jax.jit
def train_step(params, state):
    def loss_fn(params):
        ctc = optax.ctc_loss(params["ctc"], jnp.zeros((2, 2)), jnp.array([[1], [2]]), jnp.zeros((2, 1))).mean()
        attention = optax.softmax_cross_entropy_with_integer_labels(params["decoder"], jnp.array([2, 0])).mean()
        return balanced(ctc, attention)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state)
    return optax.apply_updates(params, updates), state, loss


# What is left to learn from a very small set after a long time: nothing.
certain = 17.5 * jax.nn.one_hot(jnp.array([[1, 1], [2, 2]]), 4)
params = {"ctc": certain, "decoder": jnp.zeros((2, 3))}
tx = optax.sgd(1e-3)
state = tx.init(params)
for step in range(4):
    params, state, loss = train_step(params, state)
    print(step, loss)
