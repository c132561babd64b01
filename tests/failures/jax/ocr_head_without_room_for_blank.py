"""One output for each character, labels counted from 1: the last character has no class.

report: https://discuss.pytorch.org/t/best-practices-to-solve-nan-ctc-loss/151913
record: num-classes-without-blank
expects: CTC201 no-class-for-blank at step 0
"""

import string

import jax
import jax.numpy as jnp
import numpy as np
import optax

charset = string.digits + string.ascii_uppercase
char_to_id = {c: i for i, c in enumerate(charset, start=1)}  # 0 is for the blank
num_classes = len(charset)  # right: num_classes = len(charset) + 1
rs = np.random.RandomState(5)


def glorot(key, shape):
    return jax.nn.initializers.glorot_uniform()(key, shape)


k1, k2 = jax.random.split(jax.random.PRNGKey(1))
params = {
    "w1": glorot(k1, (24, 48)),
    "b1": jnp.zeros(48),
    "w2": glorot(k2, (48, num_classes)),
    "b2": jnp.zeros(num_classes),
}
tx = optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(0.05, momentum=0.9))
opt_state = tx.init(params)


def plates(n):
    words = ["".join(rs.choice(list(charset), 6)) + "Z" for _ in range(n)]
    columns = rs.rand(n, 32, 24).astype("f")  # columns of the image
    return columns, np.array([[char_to_id[c] for c in w] for w in words])


def apply(params, columns):
    hidden = jax.nn.relu(columns @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


@jax.jit
def update(params, opt_state, columns, labels):
    def objective(params):
        logits = apply(params, columns)
        n, t, _ = logits.shape
        return optax.ctc_loss(logits, jnp.zeros((n, t)), labels, jnp.zeros(labels.shape)).sum() / n

    value, grads = jax.value_and_grad(objective)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, value


for i in range(4):
    params, opt_state, value = update(params, opt_state, *plates(8))
    print(i, float(value))
