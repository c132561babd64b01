"""Lengths as shares of the longest utterance, compared with frame numbers: one frame is left of each.

report: https://github.com/speechbrain/speechbrain/issues/496
record: relative-lengths
expects: CTC304 fraction at step 0
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState


class Brain:
    def __init__(self, hparams):
        self.modules = nn.Sequential([nn.Dense(hparams["width"]), nn.leaky_relu, nn.Dense(hparams["output_neurons"])])
        params = self.modules.init(jax.random.PRNGKey(hparams["seed"]), jnp.zeros((1, 1, hparams["mels"])))
        self.state = TrainState.create(apply_fn=self.modules.apply, params=params, tx=optax.adadelta(hparams["lr"]))
        self.fit_batch = jax.jit(self._fit_batch)

    def compute_objectives(self, predictions, wav_lens, phns, phn_lens):
        frames, labels = jnp.arange(predictions.shape[1]), jnp.arange(phns.shape[1])
        phn_lens = phn_lens * phns.shape[1]
        # right: wav_lens = wav_lens * predictions.shape[1]
        return optax.ctc_loss(
            predictions,
            (frames >= wav_lens[:, None]).astype(jnp.float32),
            phns,
            (labels >= phn_lens[:, None]).astype(jnp.float32),
        ).mean()

    def _fit_batch(self, state, feats, *rest):
        def loss(params):
            return self.compute_objectives(state.apply_fn(params, feats), *rest)

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value

    def fit(self, train_set):
        for batch in train_set:
            self.state, loss = self.fit_batch(self.state, *batch)
            print(float(loss))


def dataio(batches, size=4, frames=80, phones=10):
    rng = np.random.default_rng(496)
    for _ in range(batches):
        wav_lens = np.array([1.0, *rng.uniform(0.6, 0.95, size - 1)], np.float32)
        phn_lens = np.array([1.0, *rng.integers(4, phones, size - 1) / phones], np.float32)
        yield rng.normal(size=(size, frames, 40)).astype("f"), wav_lens, rng.integers(1, 40, (size, phones)), phn_lens


Brain({"seed": 1234, "mels": 40, "width": 32, "output_neurons": 40, "lr": 1.0}).fit(dataio(3))
