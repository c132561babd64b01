"""The Hugging Face Trainer on several ranks: healthy, with a checkpoint and a resume; stopped; then raised."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Trainer,
    TrainingArguments,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2CTCTokenizer,
    default_data_collator,
)
from transformers.utils import logging

from ctcguard import CTCGuard

SYMBOLS = ["<pad>", "<unk>", "|", *"abcdefghij"]
FRAMES, ROOM = 40, 60
RANK = int(os.environ["RANK"])
RANKS = int(os.environ["WORLD_SIZE"])


def speech(bad: int | None = None, count: int = 64) -> list[dict[str, torch.Tensor]]:
    """Utterances of 40 frames with 6 labels each; the bad one has 60."""
    generator = torch.Generator().manual_seed(0)
    items = []
    for number in range(count):
        labels = torch.randint(3, len(SYMBOLS), (ROOM,), generator=generator)
        labels[ROOM if number == bad else 4 + number % 4 :] = -100
        items.append({"input_features": torch.randn(FRAMES, 8, generator=generator), "labels": labels})
    return items


def model() -> Wav2Vec2BertForCTC:
    torch.manual_seed(0)
    return Wav2Vec2BertForCTC(
        Wav2Vec2BertConfig(
            vocab_size=len(SYMBOLS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            feature_projection_input_dim=8, pad_token_id=0, layerdrop=0.0, conv_depthwise_kernel_size=3,
            ctc_loss_reduction="mean", mask_time_prob=0.0, ctc_zero_infinity=True,
        )
    )  # fmt: skip


def trainer(name: str, data: Any, guard: CTCGuard | None, steps: int = 6) -> Trainer:
    file = Path(f"vocab-{RANK}.json")  # of its own: the other rank may be reading
    file.write_text(json.dumps({symbol: i for i, symbol in enumerate(SYMBOLS)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(file), unk_token="<unk>", pad_token="<pad>", word_delimiter_token="|")
    return Trainer(
        model(),
        TrainingArguments(
            name, per_device_train_batch_size=2, max_steps=steps, save_steps=4, logging_steps=50, report_to=[],
            disable_tqdm=True, seed=0, use_cpu=True, ddp_backend="gloo", learning_rate=1e-3, warmup_steps=0,
            train_sampling_strategy="sequential", dataloader_pin_memory=False,
        ),
        train_dataset=data,
        data_collator=default_data_collator,
        processing_class=tokenizer,
        callbacks=[] if guard is None else [guard],
    )  # fmt: skip


def weights(trainer: Trainer) -> list[Any]:
    return [parameter.detach().tolist() for parameter in trainer.model.parameters()]


def healthy() -> dict[str, Any]:
    alone = trainer("alone", speech(), None)
    alone.train()
    guard = CTCGuard(on_warning="raise")
    guarded = trainer("guarded", speech(), guard)
    guarded.train()
    again = CTCGuard(on_warning="raise")
    resumed = trainer("guarded", speech(), again)
    resumed.train(resume_from_checkpoint="guarded/checkpoint-4")
    return {
        "equal": weights(alone) == weights(guarded) == weights(resumed),
        "state": sorted(path.name for path in Path("guarded/checkpoint-4").glob("ctcguard-*")),
        "calls": [each.watch.guard.calls for each in (guard, again)],
        "remembered": [len(each.watch.state_dict()["history"]["rows"]) for each in (guard, again)],
        "findings": [finding.code for each in (guard, again) for finding in each.watch.findings],
    }


def stopped() -> dict[str, Any]:
    guard = CTCGuard(on_warning="stop")
    run = trainer("stopped", speech(bad=2 * RANKS + 2 * (RANKS - 1)), guard, steps=40)  # of step 1, the last rank
    run.train()
    stop = guard.watch.guard.reporter.stop
    return {
        "steps": run.state.global_step,
        "stop": stop and [stop.code, stop.root.rank, stop.root.step],
        "weights": weights(run),
        "found": [finding.code for finding in guard.watch.findings],
    }


logging.set_verbosity_error()
torch.set_num_threads(1)
result = {"healthy": healthy(), "stopped": stopped()}
Path(f"result-{RANK}.json").write_text(json.dumps(result))
shutil.rmtree("alone", ignore_errors=True)
trainer("raised", speech(bad=2 * RANKS + 2 * (RANKS - 1)), CTCGuard(on_warning="raise")).train()
print("this is not reached")
