"""The model ends in a softmax, as for cross-entropy, and optax applies its own: the loss gets stuck.

report: https://github.com/mindee/doctr/pull/195
record: double-softmax-doctr
expects: CTC404 softmax-before-loss at step 0
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

VOCAB = "0123456789abcdefghijklmnopqrstuvwxyz!?.,€"


class CRNN(nn.Module):
    rnn_units: int = 16

    @nn.compact
    def __call__(self, crops):
        features = nn.relu(nn.Conv(8, (3, 3), strides=(2, 1))(crops)).max(axis=1)
        forward = nn.RNN(nn.GRUCell(self.rnn_units))(features)
        backward = nn.RNN(nn.GRUCell(self.rnn_units), reverse=True, keep_order=True)(features)
        scores = nn.Dense(len(VOCAB) + 1)(jnp.concatenate([forward, backward], axis=-1))
        return nn.softmax(scores)  # right: return scores


def words(rng, count, width=28):
    gt = rng.integers(1, len(VOCAB) + 1, (count, 5))
    return rng.random((count, 12, width, 1), dtype=np.float32), gt


rng = np.random.default_rng(195)
model = CRNN()
images, gt = words(rng, 6)
state = TrainState.create(apply_fn=model.apply, params=model.init(jax.random.key(1), images), tx=optax.adam(5e-4))


@jax.jit
def fit_batch(state, images, gt):
    def compute_loss(params):
        out = state.apply_fn(params, images)
        return optax.ctc_loss(out, jnp.zeros(out.shape[:-1]), gt, jnp.zeros(gt.shape)).mean()

    loss, grads = jax.value_and_grad(compute_loss)(state.params)
    return state.apply_gradients(grads=grads), loss


for _ in range(3):
    state, loss = fit_batch(state, images, gt)
    images, gt = words(rng, 6)
    print(loss)
