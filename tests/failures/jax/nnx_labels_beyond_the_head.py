"""Vietnamese labels and a head for English letters: optax gives the labels without a class probability 1.

report: https://github.com/TensorSpeech/TensorFlowASR/issues/172
record: tf2-dense-silent-oob
expects: CTC201 label-beyond-head at step 0
"""

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

ENGLISH = " abcdefghijklmnopqrstuvwxyz'"
VIETNAMESE = " abcdeghiklmnopqrstuvxyàáâãèéêìíòóôõùúýăđĩũơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ"


class DeepSpeech2(nnx.Module):
    def __init__(self, mels, width, classes, rngs):
        self.conv = nnx.Conv(mels, width, kernel_size=(5,), strides=(2,), rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.out = nnx.Linear(width, classes, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.norm(self.conv(x))))


def encode(text):
    return [VIETNAMESE.index(letter) + 1 for letter in text]


texts = ["xin chào việt nam", "hôm nay trời đẹp", "cảm ơn bạn nhiều", "một hai ba bốn năm", "tôi ở hà nội", "tạm biệt"]
classes = len(ENGLISH) + 1  # right: classes = len(VIETNAMESE) + 1
model = DeepSpeech2(16, 32, classes, nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param)


def loss_fn(model, batch):
    logits = model(batch["speech"])
    T = jnp.arange(logits.shape[1])
    U = jnp.arange(batch["text"].shape[1])
    logit_paddings = (T >= batch["frames"][:, None]).astype(jnp.float32)
    label_paddings = (U >= batch["letters"][:, None]).astype(jnp.float32)
    return jnp.mean(optax.ctc_loss(logits, logit_paddings, batch["text"], label_paddings))


@nnx.jit
def train_step(model, optimizer, batch):
    loss, grads = nnx.value_and_grad(loss_fn)(model, batch)
    optimizer.update(model, grads)
    return loss


rng = np.random.default_rng(4)
for epoch in range(3):
    lines = [encode(text) for text in rng.permutation(texts)]
    frames = np.array([2 * len(line) + 8 for line in lines])
    text = np.zeros((len(lines), max(map(len, lines))), np.int32)
    for row, line in zip(text, lines):
        row[: len(line)] = line
    speech = rng.normal(size=(len(lines), 96, 16)).astype(np.float32)
    batch = {"speech": speech, "frames": frames, "text": text, "letters": np.array([len(line) for line in lines])}
    print("epoch", epoch, "ctc", train_step(model, optimizer, batch))
