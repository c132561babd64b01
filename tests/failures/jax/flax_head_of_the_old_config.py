"""The head has config.vocab_size classes, the tokenizer more: labels without a class cost nothing, later loss < 0.

report: https://github.com/sanchit-gandhi/seq2seq-speech/issues/28
record: jax-seq2seq-vocab-mismatch
expects: CTC101 missing-classes before training
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

import ctcguard


@dataclass(frozen=True)
class SpeechConfig:
    vocab_size: int = 32
    hidden_size: int = 24


tokenizer = ["<pad>", "<s>", "</s>", "<unk>", "|", *"etaonihsrdlumwcfgypbvk'xjqz", *"äöüß"]
config = SpeechConfig()
# right: config = SpeechConfig(vocab_size=len(tokenizer))


class ForCTC(nn.Module):
    config: SpeechConfig

    @nn.compact
    def __call__(self, features):
        hidden = nn.gelu(nn.Dense(self.config.hidden_size)(features))
        hidden = nn.Conv(self.config.hidden_size, (3,), strides=(2,))(hidden)
        return nn.Dense(self.config.vocab_size, name="lm_head")(nn.LayerNorm()(hidden))


model = ForCTC(config)
rng = np.random.default_rng(0)
variables = model.init(jax.random.key(0), jnp.zeros((1, 64, 20)))
state = TrainState.create(apply_fn=model.apply, params=variables["params"], tx=optax.adamw(3e-4))


def get_batch():
    features = rng.standard_normal((4, 64, 20), dtype=np.float32)
    counts = rng.integers(5, 10, 4)
    padding = np.arange(10) >= counts[:, None]
    labels = np.where(padding, 0, rng.integers(4, len(tokenizer) - 4, (4, 10)))
    return {"features": features, "labels": labels, "label_paddings": padding.astype(np.float32)}


@jax.jit
def train_step(state, batch):
    def loss_fn(params):
        logits = state.apply_fn({"params": params}, batch["features"])
        frame_paddings = jnp.zeros(logits.shape[:2])
        return optax.ctc_loss(logits, frame_paddings, batch["labels"], batch["label_paddings"]).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss


train_step = ctcguard.guard_step(train_step, vocabulary=tokenizer)
for step in range(3):
    state, loss = train_step(state, get_batch())
    print(f"Step... ({step} | Loss: {loss})")
train_step.close()
