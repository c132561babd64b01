"""Three runs that go wrong, in PyTorch, in the Hugging Face Trainer and in JAX: each leaves a flight record."""

import json
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import transformers

from ctcguard import CTCGuard, CTCVerdictError, guard_step, watch

symbols = ["<pad>", "<unk>", "|", *"abcdefghi"]
labels = np.asarray([[3, 4, 2, 5, 5], [6, 7, 8, 9, 2]])
features = np.random.default_rng(0).normal(size=(2, 30, len(symbols))).astype(np.float32)

with suppress(CTCVerdictError), watch(run_dir="torch", vocabulary=symbols):
    scores = torch.from_numpy(features).requires_grad_().softmax(-1).transpose(0, 1)
    torch.nn.CTCLoss()(scores, torch.from_numpy(labels), (30, 25), (5, 4))

Path("vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
config = transformers.Wav2Vec2BertConfig(
    vocab_size=len(symbols), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    feature_projection_input_dim=len(symbols), pad_token_id=0, layerdrop=0.0, conv_depthwise_kernel_size=3,
    mask_time_prob=0.0,
)  # fmt: skip
trainer = transformers.Trainer(
    transformers.Wav2Vec2BertForCTC(config),
    transformers.TrainingArguments("out", max_steps=1, report_to=[], disable_tqdm=True, use_cpu=True),
    train_dataset=[{"input_features": torch.from_numpy(x), "labels": 3 + torch.arange(40) % 9} for x in features],
    data_collator=transformers.default_data_collator,
    processing_class=transformers.Wav2Vec2CTCTokenizer("vocab.json", bos_token=None, eos_token=None),
    callbacks=[CTCGuard(run_dir="hf")],
)
with suppress(CTCVerdictError):
    trainer.train()


@guard_step(run_dir="jax", vocabulary=symbols)
@jax.jit
def step(logits):
    return optax.ctc_loss(jax.nn.softmax(logits), jnp.zeros((2, 30)), jnp.asarray(labels), jnp.zeros((2, 5))).mean()


with suppress(CTCVerdictError):
    step(jnp.asarray(features))
step.close()
