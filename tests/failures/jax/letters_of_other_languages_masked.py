"""Letters of the other languages are set to -inf before the loss, none of them in a target: optax makes NaN of them.

report: https://github.com/google-deepmind/optax/pull/293
record: optax-nan-in-padded-frames
expects: CTC403 masking at step 0
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

LATIN, GREEK = "abcdefghijklmnopqrstuvwxyz", "αβγδεζηθικλμνξοπρστυφχψω"
CLASSES = 1 + len(LATIN) + len(GREEK)
allowed = {
    "english": np.arange(CLASSES) <= len(LATIN),
    "greek": (np.arange(CLASSES) > len(LATIN)) | (np.arange(CLASSES) == 0),
}


class Multilingual(nn.Module):
    @nn.compact
    def __call__(self, speech, language_mask):
        hidden = nn.elu(nn.Dense(32)(speech))
        logits = nn.Dense(CLASSES)(hidden)
        never = -jnp.inf  # right: never = -1e9
        return jnp.where(language_mask[:, None], logits, never)


def batch(rng, languages=("english", "greek", "greek", "english")):
    first = {"english": 1, "greek": 1 + len(LATIN)}
    labels = np.stack([first[language] + rng.permutation(24)[:6] for language in languages])
    mask = np.stack([allowed[language] for language in languages])
    return rng.normal(size=(4, 30, 12)).astype(np.float32), mask, labels


model, rng = Multilingual(), np.random.default_rng(293)
speech, mask, _ = batch(rng)
state = TrainState.create(
    apply_fn=model.apply, params=model.init(jax.random.key(293), speech, mask)["params"], tx=optax.adam(1e-3)
)


@jax.jit
def train_step(state, speech, mask, labels):
    def loss_fn(params):
        logits = state.apply_fn({"params": params}, speech, mask)
        return optax.ctc_loss(logits, jnp.zeros(logits.shape[:2]), labels, jnp.zeros(labels.shape)).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss


for _ in range(3):
    state, loss = train_step(state, *batch(rng))
    print(float(loss))
