"""One guarded call for each extra: what a user of the installed package does first. Run as ``programs.py EXTRA``.

Each program shows that a mistake is found and that the healthy twin of it is not; it prints one line and ends with 0.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

LENGTHS = {"input_lengths": [30, 28], "target_lengths": [4, 3]}
TARGETS = np.array([[1, 2, 3, 4], [2, 3, 1, 1]])


def as_it_should_be(verdict: Any, code: str) -> str:
    """What to print of a verdict that has the right code."""
    if verdict.code != code:
        raise AssertionError(f"{verdict.code} in place of {code}")
    return f"{verdict.code} {verdict.cause}"


def core() -> str:
    from ctcguard import diagnose

    scores = np.random.default_rng(0).normal(size=(2, 30, 8))
    log_probs = scores - np.log(np.exp(scores).sum(-1, keepdims=True))
    call: dict[str, Any] = {**LENGTHS, "targets": TARGETS, "blank": 0}
    assert diagnose(log_probs=log_probs, **call) == ()
    [verdict] = diagnose(log_probs=scores, **call)
    assert verdict.code == "CTC402"
    return f"{verdict.code} {verdict.cause}"


def torch() -> str:
    import torch

    from ctcguard import CTCVerdictError, watch

    def train(normalise: Any) -> None:
        torch.manual_seed(0)
        model = torch.nn.Linear(6, 8)
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(3):
            log_probs = normalise(model(torch.randn(30, 2, 6)), -1)
            lengths = (torch.tensor(LENGTHS[name]) for name in LENGTHS)
            torch.nn.CTCLoss()(log_probs, torch.from_numpy(TARGETS), *lengths).backward()
            optimizer.step()
            optimizer.zero_grad()

    with watch(run_dir="healthy") as guard:
        train(torch.log_softmax)
    assert guard.findings == [], guard.findings
    try:
        with watch(run_dir="wrong"):
            train(torch.softmax)
    except CTCVerdictError as error:
        return as_it_should_be(error.verdict, "CTC402")
    raise AssertionError("softmax instead of log_softmax was not found")


def hf() -> str:
    import json

    import torch
    import transformers
    from transformers import TrainingArguments, Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC

    from ctcguard import CTCGuard, CTCVerdictError

    symbols = ["<pad>", "<unk>", "|", *"abcdefghijklm"]
    Path("vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(symbols)}))
    tokenizer = Wav2Vec2CTCTokenizer("vocab.json", pad_token="<pad>", bos_token=None, eos_token=None)

    def train(classes: int) -> CTCGuard:
        torch.manual_seed(0)
        config = Wav2Vec2Config(
            vocab_size=classes, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            conv_dim=(8, 8), conv_kernel=(10, 8), conv_stride=(5, 4), num_feat_extract_layers=2, mask_time_prob=0.0,
            num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, ctc_loss_reduction="mean", pad_token_id=0,
        )  # fmt: skip
        labels = [[3, 4, 5, 9], [4, 3, 6, 8], [7, 5, 4, 3], [3, 8, 9, 6]]
        clips = [{"input_values": torch.randn(800), "labels": torch.tensor(each)} for each in labels]
        guard = CTCGuard()
        trainer = transformers.Trainer(
            model=Wav2Vec2ForCTC(config),
            args=TrainingArguments("out", max_steps=2, report_to="none", use_cpu=True, disable_tqdm=True),
            train_dataset=clips,
            processing_class=tokenizer,
            data_collator=lambda items: {name: torch.stack([item[name] for item in items]) for name in items[0]},
            callbacks=[guard],
        )
        trainer.train()
        return guard

    watch = train(16).watch
    assert watch is not None
    assert [finding for finding in watch.findings if finding.severity != "information"] == []
    assert watch.guard.calls == 2
    try:
        train(10)
    except CTCVerdictError as error:
        return as_it_should_be(error.verdict, "CTC101")
    raise AssertionError("a head narrower than the tokenizer was not found")


def jax() -> str:
    import jax
    import jax.numpy as jnp
    import optax

    from ctcguard import CTCVerdictError, guard_step

    paddings = np.arange(30)[None, :] >= np.array(LENGTHS["input_lengths"])[:, None]
    label_paddings = np.arange(4)[None, :] >= np.array(LENGTHS["target_lengths"])[:, None]
    features = jax.random.normal(jax.random.key(0), (2, 30, 6))

    def run(classes: int) -> Any:
        @jax.jit
        def step(weights: Any) -> Any:
            def loss(weights: Any) -> Any:
                logits = features @ weights
                return optax.ctc_loss(logits, jnp.asarray(paddings, float), TARGETS, label_paddings * 1.0).mean()

            return weights - 0.01 * jax.grad(loss)(weights)

        weights = jax.random.normal(jax.random.key(1), (6, classes))
        guarded = guard_step(step, run_dir=str(classes))
        for _ in range(3):
            weights = guarded(weights)
        guarded.close()
        return guarded

    assert run(8).findings == []
    try:
        run(4)
    except CTCVerdictError as error:
        return as_it_should_be(error.verdict, "CTC201")
    raise AssertionError("a label beyond the head was not found")


def wandb() -> str:
    import wandb

    from ctcguard import WandbAlerts, diagnose

    run = wandb.init(mode="offline", dir=".", project="release", settings=wandb.Settings(silent=True))
    [verdict] = diagnose(
        log_probs=np.full((2, 30, 8), 3.0), targets=TARGETS, blank=0, **LENGTHS
    )  # the same mistake as in core()
    WandbAlerts().verdict(verdict)
    assert run.summary["ctcguard/verdict"] == f"{verdict.code} {verdict.cause}"
    run.finish()
    [record] = Path("wandb").glob("offline-run-*/*.wandb")
    assert verdict.root.title().encode() in record.read_bytes()
    return f"{verdict.code} {verdict.cause}, alert in the run's file"


if __name__ == "__main__":
    program = {"core": core, "torch": torch, "hf": hf, "jax": jax, "wandb": wandb}[sys.argv[1]]
    print(program())
