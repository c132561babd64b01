"""Labels padded with -1, and their number taken by counting what is not 0: the padding is trained too.
keras.losses.CTC counts in this way; here it is optax.

report: https://github.com/keras-team/keras/issues/21876
record: keras3-padding
expects: CTC202 padding at step 0
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

PAD = -1


class CRNN(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images, train=True):
        x = nn.Conv(8, (3, 3))(images[..., None])
        x = nn.max_pool(nn.relu(x), (2, 2), (2, 2))
        x = x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)
        x = nn.Dense(32)(x)
        x = nn.Dropout(0.1, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.classes)(x)


def ctc(logits, y_true):
    label_mask = y_true != 0  # right: label_mask = y_true != PAD
    return optax.ctc_loss(logits, jnp.zeros(logits.shape[:2]), y_true, 1.0 - label_mask)


model = CRNN(classes=40)
images = np.random.default_rng(2).random((24, 16, 60), dtype=np.float32)
captchas = [np.random.default_rng(i).integers(1, 40, 3 + i % 4) for i in range(24)]
labels = np.full((24, 6), PAD)
for row, captcha in zip(labels, captchas):
    row[: len(captcha)] = captcha

params = model.init(jax.random.key(0), images[:1], train=False)
tx = optax.adam(1e-3)
state = tx.init(params)


@jax.jit
def step(params, state, images, labels, key):
    def loss_fn(p):
        return ctc(model.apply(p, images, rngs={"dropout": key}), labels).mean()

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, state = tx.update(grads, state)
    return optax.apply_updates(params, updates), state, loss


key = jax.random.key(1)
for start in range(0, 24, 8):
    key, dropout = jax.random.split(key)
    params, state, loss = step(params, state, images[start : start + 8], labels[start : start + 8], dropout)
    print(loss)
