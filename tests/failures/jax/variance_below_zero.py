"""A variance as E[x²] - E[x]² comes out below zero for a clip that hardly changes: its features are NaN.

report: https://github.com/xinjli/allosaurus/issues/64
record: nan-features-cmvn
expects: CTC403 non-finite-features at step 1
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

rng = np.random.default_rng(64)


def cmvn(feature):
    mean = feature.mean(axis=0, dtype=np.float32)
    variance = (feature**2).mean(axis=0, dtype=np.float32) - mean**2
    return (feature - mean) / np.sqrt(variance)  # right: return (feature - mean) / np.sqrt(np.maximum(variance, 1e-4))


def clip(number, frames=32, mels=10):
    feature = rng.normal(-4, 2, (frames, mels)).astype(np.float32)
    if number == 5:  # a hum
        feature = np.float32(-4.1) + rng.normal(0, 1e-5, (frames, mels)).astype(np.float32)
    return feature


def phone_logits(params, feature):
    hidden = jnp.tanh(feature @ params["lstm"])
    return hidden @ params["phone"]


def total_loss(params, features, phones):
    logits = phone_logits(params, features)
    return optax.ctc_loss(logits, jnp.zeros(features.shape[:2]), phones, jnp.zeros(phones.shape)).mean()


params = {
    "lstm": jnp.asarray(rng.normal(0, 0.3, (10, 24)), jnp.float32),
    "phone": jnp.asarray(rng.normal(0, 0.2, (24, 36)), jnp.float32),
}
tx = optax.sgd(1e-2, momentum=0.9, nesterov=True)
state = tx.init(params)
step = jax.jit(jax.value_and_grad(total_loss))
with np.errstate(divide="ignore", invalid="ignore"):
    corpus = np.stack([cmvn(clip(number)) for number in range(16)])
for batch in corpus.reshape(4, 4, 32, 10):
    loss, grads = step(params, batch, rng.integers(1, 36, (4, 5)))
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    print("loss", loss)
