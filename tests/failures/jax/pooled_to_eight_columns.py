"""The backbone pools every image to eight columns, whatever its width: no line of text fits.

report: https://github.com/PaddlePaddle/PaddleOCR/issues/17876
record: paddleocr-T40-zero-loss
expects: CTC301 most-of-the-batch at step 0
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax


class Backbone(nn.Module):
    columns: int = 8  # right: columns: int = 40

    @nn.compact
    def __call__(self, image):
        x = nn.silu(nn.Conv(12, (3, 3), strides=(2, 2))(image))
        x = x.mean(axis=1)
        return jax.image.resize(x, (x.shape[0], self.columns, x.shape[-1]), "linear")


class Recogniser(nn.Module):
    characters: int

    def setup(self):
        self.backbone = Backbone()
        self.neck = nn.Dense(24)
        self.ctc_head = nn.Dense(self.characters + 1)

    def __call__(self, image):
        return self.ctc_head(nn.relu(self.neck(self.backbone(image))))


rng = np.random.default_rng(17876)
model = Recogniser(characters=62)
params = model.init(jax.random.key(3), np.zeros((1, 16, 96, 1), np.float32))
tx = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 1e-3, 2, 10))
opt = tx.init(params)


@jax.jit
def train(params, opt, image, label, length):
    def loss_fn(params):
        logits = model.apply(params, image)
        unused = (jnp.arange(label.shape[1])[None] >= length[:, None]) * 1.0
        return optax.ctc_loss(logits, jnp.zeros(logits.shape[:2]), label, unused).mean()

    loss, grads = jax.value_and_grad(loss_fn)(params)
    delta, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, delta), opt, loss


for epoch in range(3):
    length = rng.integers(9, 18, 6)
    label = rng.integers(1, 63, (6, 18)) * (np.arange(18) < length[:, None])
    params, opt, loss = train(params, opt, rng.random((6, 16, 96, 1), np.float32), label, length)
    print("CTCLoss", loss)
