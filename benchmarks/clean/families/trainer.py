"""The Trainer of Hugging Face with tiny models of every CTC family, on tones."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import (
    HubertConfig,
    HubertForCTC,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
)
from transformers.utils import logging

from benchmarks.clean.corpus import Family, Losses
from ctcguard import CTCGuard
from tests.clean.lab import Tensor
from tests.clean.test_transformers import (
    LAYER,
    SYMBOLS,
    Pad,
    a_processor,
    a_tokenizer,
    frozen,
    of_bert,
    of_parakeet,
    of_waves,
)

family = Family("trainer", "HF Trainer")
STEPS = 60
SAMPLES = 64
"""Of a tone, one a label."""
Model = Callable[..., Any]
Change = Callable[[Any], Any]


def wav2vec2(**options: Any) -> Any:
    return of_waves(Wav2Vec2Config, Wav2Vec2ForCTC, **{"mask_time_prob": 0.0} | options)


def wav2vec2_layer_norm(**options: Any) -> Any:
    return wav2vec2(**LAYER, **options)


def hubert(**options: Any) -> Any:
    return of_waves(HubertConfig, HubertForCTC, **LAYER, **options)


def bert(**options: Any) -> Any:
    return of_bert(**{"mask_time_prob": 0.0} | options)


def tones(waves: bool, blank: int, seed: int, empty: float) -> list[dict[str, Tensor]]:
    """Fifty-eight utterances: a tone for each label, as samples, or as the energies of 8 bands."""
    generator = torch.Generator().manual_seed(seed)
    bands = torch.randn(len(SYMBOLS) + 1, 8, generator=generator)
    items = []
    for _ in range(58):
        count = int(torch.randint(1, 6, (), generator=generator))
        labels = torch.randint(3, len(SYMBOLS) - 1, (count,), generator=generator)
        labels = labels + (labels >= blank) if blank > 2 else labels
        time = torch.arange(SAMPLES)
        sounds = [(time * (0.05 + 0.04 * label)).sin() for label in labels] if waves else [
            bands[label].repeat(16, 1) for label in labels
        ]  # fmt: skip
        silence = torch.zeros(2 * SAMPLES) if waves else torch.zeros(16, 8)
        features = torch.cat([silence, *sounds, silence])
        noise = torch.randn(features.shape, generator=generator)
        silent = float(torch.rand((), generator=generator)) < empty
        items.append({"x": features + 0.1 * noise, "labels": labels[: 0 if silent else count]})
    return items


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Transformers says nothing of the lengths of labels, and the like."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def training(
    model: Model,
    config: dict[str, Any] | None = None,
    pad: Pad | None = None,
    change: Change = lambda model: model,
    processing: Change = lambda tokenizer: tokenizer,
    empty: float = 0.0,
    more: Callable[[int], dict[str, Any]] = lambda number: {},
    **options: Any,
) -> Callable[[int, CTCGuard], Losses]:
    """As a user writes it; ``options`` are those of ``TrainingArguments``."""

    def train(seed: int, guard: CTCGuard) -> Losses:
        torch.manual_seed(seed)
        net = change(model(**(config or {})))
        name, blank = net.main_input_name, net.config.pad_token_id
        waves = name == "input_values"
        made = tones(waves, blank, seed, empty)
        data = [{name: item["x"], "labels": item["labels"]} | more(i) for i, item in enumerate(made)]
        symbols = [*SYMBOLS[1 : blank + 1], SYMBOLS[0], *SYMBOLS[blank + 1 :]]
        arguments: dict[str, Any] = {
            "output_dir": "out", "per_device_train_batch_size": 4, "max_steps": STEPS, "report_to": [], "seed": seed,
            "disable_tqdm": True, "use_cpu": True, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no",
            "eval_strategy": "no", "dataloader_pin_memory": False, "logging_strategy": "steps",
        }  # fmt: skip
        trainer = Trainer(
            net,
            TrainingArguments(**arguments | options),
            train_dataset=data,
            eval_dataset=data[:6],
            data_collator=pad or Pad(mask=not waves),
            processing_class=processing(a_tokenizer(symbols)),
            callbacks=[guard],
        )
        trainer.remove_callback(PrinterCallback)
        with quiet():
            trainer.train()
        yield from (entry["loss"] for entry in trainer.state.log_history if "loss" in entry)

    return train


def spoken(number: int) -> dict[str, Any]:
    """A column of texts in the letters of the vocabulary."""
    return {"text": "abc dij fgh"[: 3 + number % 9]}


def raw_and_normalised(number: int) -> dict[str, Any]:
    """As LJ Speech has it: labels are made of the second column, where numbers are words."""
    return {"text": f"bad fig {number}, ice", "normalized_text": "bad fig ace, ice"}


MASK = Pad(mask=True)
SETTINGS: dict[str, Callable[[int, CTCGuard], Losses]] = {
    "Wav2Vec2, group norm, no attention mask": training(wav2vec2),
    "Wav2Vec2, layer norm, attention mask": training(wav2vec2_layer_norm, pad=MASK),
    "Wav2Vec2, reduction sum, accumulation": training(
        wav2vec2_layer_norm, {"ctc_loss_reduction": "sum"}, MASK, gradient_accumulation_steps=2,
        per_device_train_batch_size=2, learning_rate=3e-3,
    ),
    "Wav2Vec2, zero_infinity": training(wav2vec2, {"ctc_zero_infinity": True}),
    "Wav2Vec2, spec augment": training(wav2vec2_layer_norm, {"mask_time_prob": 0.2, "mask_feature_prob": 0.1}, MASK),
    "Wav2Vec2, adapter, processor": training(
        wav2vec2, {"add_adapter": True, "num_adapter_layers": 1}, processing=a_processor
    ),
    "Wav2Vec2, frozen encoder": training(wav2vec2, change=frozen("wav2vec2")),
    "Wav2Vec2, restarts, clipped hard": training(
        wav2vec2_layer_norm, pad=MASK, lr_scheduler_type="cosine_with_restarts", warmup_steps=10, max_grad_norm=0.05,
        lr_scheduler_kwargs={"num_cycles": 3},
    ),
    "Wav2Vec2, no schedule, Adafactor": training(wav2vec2, lr_scheduler_type="constant", optim="adafactor"),
    "HuBERT": training(hubert, pad=MASK),
    "HuBERT, bf16": training(hubert, pad=MASK, bf16=True),
    "Wav2Vec2-BERT": training(bert),
    "Wav2Vec2-BERT, bf16": training(bert, bf16=True),
    "Wav2Vec2-BERT, silent clips": training(bert, empty=0.15),
    "Wav2Vec2-BERT, evaluation in between": training(
        bert, eval_strategy="steps", eval_steps=10, per_device_eval_batch_size=3
    ),
    "Wav2Vec2-BERT, epochs with a short last batch": training(
        bert, max_steps=-1, num_train_epochs=4, per_device_train_batch_size=4, dataloader_drop_last=False
    ),
    "Wav2Vec2-BERT, padded to a static shape": training(bert, pad=Pad(mask=True, to=256)),
    "Wav2Vec2-BERT, head padded to a multiple of 8": training(bert, {"vocab_size": 16}),
    "Wav2Vec2-BERT, no tokenizer": training(bert, processing=lambda tokenizer: None),
    "Wav2Vec2-BERT, labels padded with the padding": training(bert, pad=Pad(mask=True, label=0)),
    "Wav2Vec2-BERT, one utterance a batch": training(bert, per_device_train_batch_size=1),
    "Wav2Vec2-BERT, texts as they are spoken in the data": training(bert, more=spoken),
    "Wav2Vec2-BERT, raw texts with digits beside normalised ones": training(bert, more=raw_and_normalised),
    "Wav2Vec2-BERT, checkpointed gradients": training(bert, activation_checkpointing=True),
    "Parakeet, the blank last": training(of_parakeet),
    "Parakeet, bf16, one cycle": training(of_parakeet, bf16=True, warmup_steps=20),
}  # fmt: skip
for name, train in SETTINGS.items():
    family.add(name, train, seeds=2)
