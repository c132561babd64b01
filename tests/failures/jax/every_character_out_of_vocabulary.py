"""Upper-case transcripts and a lower-case vocabulary, and characters not in it are left out: no label remains.

report: https://github.com/deepgram/kur/issues/35
record: kur-uppercase-empty
expects: CTC204 all-empty at step 15
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

vocab = {letter: i for i, letter in enumerate(" 'abcdefghijklmnopqrstuvwxyz", start=1)}
manifest = [
    {"text": "NORTHANGER", "duration_s": 1.1},
    {"text": "EMMA", "duration_s": 0.6},
    {"text": "PERSUASION", "duration_s": 1.0},
    {"text": "SANDITON", "duration_s": 0.9},
    {"text": "MANSFIELD", "duration_s": 1.0},
    {"text": "LADYSUSAN", "duration_s": 1.2},
]


def transcribe(text):
    return [vocab[c] for c in text if c in vocab]  # right: return [vocab[c] for c in text.lower() if c in vocab]


def make_batch(entries, rng, most=12, frames=60):
    labels = np.zeros((len(entries), most), np.int32)
    label_paddings = np.ones((len(entries), most), np.float32)
    paddings = np.ones((len(entries), frames), np.float32)
    for i, entry in enumerate(entries):
        ids = transcribe(entry["text"])
        labels[i, : len(ids)], label_paddings[i, : len(ids)] = ids, 0
        paddings[i, : int(50 * entry["duration_s"])] = 0
    return rng.normal(size=(len(entries), frames, 26)).astype(np.float32), paddings, labels, label_paddings


def model(params, spectra):
    def cell(state, frame):
        state = jnp.tanh(frame @ params["x"] + state @ params["h"])
        return state, state

    start = jnp.zeros((spectra.shape[0], params["h"].shape[0]))
    _, states = jax.lax.scan(cell, start, spectra.swapaxes(0, 1))
    return states.swapaxes(0, 1) @ params["y"]


def loss(params, spectra, *rest):
    return optax.ctc_loss(model(params, spectra), *rest).mean()


rng = np.random.default_rng(35)
shapes = {"x": (26, 24), "h": (24, 24), "y": (24, len(vocab) + 1)}
params = {name: jnp.asarray(rng.normal(0, 0.2, shape), jnp.float32) for name, shape in shapes.items()}
tx = optax.adam(1e-3)
state = tx.init(params)
value_and_grad = jax.jit(jax.value_and_grad(loss))
for epoch in range(16):
    cost, grads = value_and_grad(params, *make_batch(manifest, rng))
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    print(f"epoch {epoch}, training loss {cost:.3f}")
