"""Labels counted from 0, and the loss takes class 0 for the blank: the first letter of the alphabet is never learned.

report: https://github.com/espnet/espnet/issues/700
record: espnet-warpctc-blank0
expects: CTC203 blank-index at step 0
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

char_list = list("abcdefghijklmnopqrstuvwxyz ")
offset = 0  # right: offset = 1
utterances = ["a banana", "an apple a day", "an abacus", "a canal", "alas an ant", "at a cabana"]


def one_loss(logits, length, label, label_length):
    """Of one utterance; the batch is mapped."""
    frames = (jnp.arange(logits.shape[0]) >= length) * 1.0
    labels = (jnp.arange(label.shape[0]) >= label_length) * 1.0
    return optax.ctc_loss(logits[None], frames[None], label[None], labels[None])[0]


def objective(params, xs, ilens, ys, olens):
    hs = jnp.maximum(xs @ params["enc"], 0)
    return jax.vmap(one_loss)(hs @ params["ctc_lo"], ilens, ys, olens).mean()


def pack(texts, room=16):
    ys = np.full((len(texts), room), 5)
    for row, text in zip(ys, texts):
        row[: len(text)] = [char_list.index(c) + offset for c in text]
    return ys, np.array([len(text) for text in texts])


rng = np.random.default_rng(700)
params = {
    "enc": jnp.asarray(rng.normal(0, 0.25, (18, 30)), jnp.float32),
    "ctc_lo": jnp.asarray(rng.normal(0, 0.2, (30, len(char_list) + 1)), jnp.float32),
}
optimizer = optax.adadelta(1.0)
opt_state = optimizer.init(params)


@jax.jit
def update(params, opt_state, *batch):
    value, grads = jax.value_and_grad(objective)(params, *batch)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value


for i in range(3):
    ys, olens = pack(list(rng.permutation(utterances)))
    xs = rng.normal(size=(6, 40, 18)).astype(np.float32)
    params, opt_state, value = update(params, opt_state, xs, rng.integers(32, 41, 6), ys, olens)
    print(i, value)
