"""Healthy trainings with the real Trainer: every kind of CTC model, and options that a user may well have set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    HubertConfig,
    HubertForCTC,
    ParakeetCTCConfig,
    ParakeetForCTC,
    SEWConfig,
    SEWForCTC,
    Trainer,
    TrainingArguments,
    UniSpeechConfig,
    UniSpeechForCTC,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForCTC,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WavLMConfig,
    WavLMForCTC,
)

from ctcguard import CTCGuard, watch
from tests.clean.lab import Weights, assert_clean, assert_same

SYMBOLS = ["<pad>", "<unk>", "|", *"abcdefghij"]
SMALL: dict[str, Any] = {
    "vocab_size": len(SYMBOLS), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "pad_token_id": 0, "ctc_loss_reduction": "mean", "layerdrop": 0.0,
}  # fmt: skip
WAVES: dict[str, Any] = {
    "conv_dim": (16, 16), "conv_stride": (8, 4), "conv_kernel": (10, 3), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "mask_time_length": 2, "mask_feature_length": 2,
}  # fmt: skip
BERT: dict[str, Any] = {"feature_projection_input_dim": 8, "conv_depthwise_kernel_size": 3, "mask_time_length": 2}


def a_tokenizer(symbols: list[str]) -> Any:
    """Its length is the head's + 2: <s> and </s> never occur."""
    Path("vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
    return Wav2Vec2CTCTokenizer("vocab.json", unk_token="<unk>", pad_token="<pad>", word_delimiter_token="|")


def of_waves(config: type, model: type, **options: Any) -> Any:
    return model(config(**{**SMALL, **WAVES, **options}))


def of_bert(**options: Any) -> Any:
    return Wav2Vec2BertForCTC(Wav2Vec2BertConfig(**{**SMALL, **BERT, **options}))


def of_parakeet(**options: Any) -> Any:
    encoder = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "conv_kernel_size": 3, "subsampling_conv_channels": 8, "num_mel_bins": 8, "subsampling_factor": 4,
    }  # fmt: skip
    last = len(SYMBOLS) - 1
    own = {"vocab_size": last + 1, "pad_token_id": last, "ctc_loss_reduction": "mean", "encoder_config": encoder}
    return ParakeetForCTC(ParakeetCTCConfig(**{**own, **options}))


def utterances(waves: bool, blank: int, count: int = 11, empty: bool = False) -> list[dict[str, torch.Tensor]]:
    """Waves of a good second at 1,000 Hz, or 8 mel bands, of many lengths."""
    generator = torch.Generator().manual_seed(0)
    items = []
    for i in range(count):
        length = 640 + 64 * (i % 5) if waves else 60 + 4 * (i % 5)
        labels = torch.randint(3, len(SYMBOLS) - 1, (1 + i % 4,), generator=generator)
        labels = labels + (labels >= blank) if blank > 2 else labels
        shape = (length,) if waves else (length, 8)
        name = "input_values" if waves else "input_features"
        items.append({name: torch.randn(shape, generator=generator), "labels": labels[: 0 if empty and i % 3 else 9]})
    return items


class Pad:
    """The usual collator: features with zeros, labels with -100, a mask where the model wants one."""

    def __init__(self, mask: bool, label: int = -100, to: int = 0, dtype: torch.dtype = torch.float32) -> None:
        self.mask, self.label, self.to, self.dtype = mask, label, to, dtype

    def __call__(self, items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        name = next(iter(items[0]))
        features = [item[name] for item in items]
        padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
        if self.to:
            rest = self.to - padded.shape[1]
            padded = torch.nn.functional.pad(padded, (0, rest) if padded.ndim == 2 else (0, 0, 0, rest))
        batch = {
            name: padded.to(self.dtype),
            "labels": torch.nn.utils.rnn.pad_sequence(
                [item["labels"] for item in items], batch_first=True, padding_value=self.label
            ),
        }
        if self.mask:
            lengths = torch.tensor([len(feature) for feature in features])
            batch["attention_mask"] = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        return batch


class Run:
    """One training with the Trainer, as a user writes it."""

    def __init__(
        self,
        model: Callable[..., Any] = of_bert,
        config: dict[str, Any] | None = None,
        pad: Pad | None = None,
        change: Callable[[Any], Any] = lambda model: model,
        information: tuple[str, ...] = (),
        processing: Callable[[Any], Any] = lambda tokenizer: tokenizer,
        empty: bool = False,
        callback: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.model, self.config, self.pad, self.change = model, config or {}, pad, change
        self.information, self.processing, self.empty = frozenset(information), processing, empty
        self.callback, self.options = callback or {}, options

    def train(self, guard: CTCGuard | None, name: str) -> Weights:
        torch.manual_seed(0)
        model = self.change(self.model(**self.config))
        waves = model.main_input_name == "input_values"
        blank = model.config.pad_token_id
        symbols = [*SYMBOLS[1 : blank + 1], SYMBOLS[0], *SYMBOLS[blank + 1 :]]
        data = utterances(waves, blank, empty=self.empty)
        arguments = {
            "output_dir": name, "per_device_train_batch_size": 2, "max_steps": 6, "report_to": [], "seed": 0,
            "disable_tqdm": True, "use_cpu": True, "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no",
            "eval_strategy": "no", "dataloader_pin_memory": False,
        }  # fmt: skip
        trainer = Trainer(
            model,
            TrainingArguments(**{**arguments, **self.options}),
            train_dataset=data,
            eval_dataset=data[:3],
            data_collator=self.pad or Pad(mask=not waves),
            processing_class=self.processing(a_tokenizer(symbols)),
        )
        if guard is not None:
            trainer.add_callback(guard)
        trainer.train()
        trainer.evaluate()
        return [parameter.detach().clone() for parameter in model.parameters()]

    def check(self, twin: bool) -> None:
        guard = CTCGuard(on_warning="raise", **self.callback)
        guarded = self.train(guard, "guarded")
        assert guard.watch is not None
        assert_clean(guard.watch.findings, self.information)
        assert guard.watch.guard.calls >= 6
        if twin:
            assert_same(self.train(None, "alone"), guarded)


def with_(config: type, model: type) -> Callable[..., Any]:
    return lambda **options: of_waves(config, model, **options)


WAV2VEC2 = with_(Wav2Vec2Config, Wav2Vec2ForCTC)
LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}

MODELS = {
    "Wav2Vec2, group norm, no attention mask": Run(WAV2VEC2, {"feat_extract_norm": "group"}),
    "Wav2Vec2, layer norm, attention mask": Run(WAV2VEC2, LAYER, Pad(mask=True)),
    "Wav2Vec2, group norm, attention mask": Run(WAV2VEC2, {"feat_extract_norm": "group"}, Pad(mask=True)),
    "Wav2Vec2 with an adapter": Run(WAV2VEC2, {"add_adapter": True, "num_adapter_layers": 1}),
    "Hubert": Run(with_(HubertConfig, HubertForCTC), LAYER, Pad(mask=True)),
    "WavLM": Run(with_(WavLMConfig, WavLMForCTC), LAYER),
    "UniSpeech": Run(with_(UniSpeechConfig, UniSpeechForCTC)),
    "Data2VecAudio": Run(
        with_(Data2VecAudioConfig, Data2VecAudioForCTC), {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}
    ),
    "SEW": Run(with_(SEWConfig, SEWForCTC), {"squeeze_factor": 1}),
    "Wav2Vec2Conformer": Run(with_(Wav2Vec2ConformerConfig, Wav2Vec2ConformerForCTC), LAYER, Pad(mask=True)),
    "Wav2Vec2Bert": Run(of_bert),
    "Wav2Vec2Bert with an adapter": Run(of_bert, {"add_adapter": True, "num_adapter_layers": 1}),
    "Parakeet, the blank last": Run(of_parakeet),
}


def frozen(name: str) -> Callable[[Any], Any]:
    def change(model: Any) -> Any:
        for parameter in getattr(model, name).parameters():
            parameter.requires_grad_(False)
        return model

    return change


def a_processor(tokenizer: Any) -> Any:
    return Wav2Vec2Processor(feature_extractor=Wav2Vec2FeatureExtractor(), tokenizer=tokenizer)


def averaged(model: Any) -> Any:
    """The Trainer divides the loss by the accumulation only if the model does not claim to."""
    model.accepts_loss_kwargs = False
    return model


OPTIONS = {
    "bf16": Run(change=averaged, bf16=True, gradient_accumulation_steps=2),
    "bf16, waves": Run(WAV2VEC2, LAYER, Pad(mask=True), bf16=True),
    "model and features in bfloat16": Run(
        pad=Pad(mask=True, dtype=torch.bfloat16), change=lambda model: model.to(torch.bfloat16)
    ),
    "accumulation over an incomplete epoch": Run(
        change=averaged, gradient_accumulation_steps=3, max_steps=-1, num_train_epochs=3
    ),
    "reduction sum": Run(config={"ctc_loss_reduction": "sum"}, gradient_accumulation_steps=2),
    "zero_infinity": Run(config={"ctc_zero_infinity": True}),
    "zero_infinity, sum": Run(WAV2VEC2, {"ctc_zero_infinity": True, "ctc_loss_reduction": "sum"}),
    "grouped by length": Run(WAV2VEC2, processing=a_processor, train_sampling_strategy="group_by_length"),
    "the padding is not symbol 0": Run(config={"pad_token_id": 5}),
    "the padding is the last symbol": Run(config={"pad_token_id": 12}),
    "label_names": Run(label_names=["labels"]),
    "labels padded with the padding symbol": Run(pad=Pad(mask=True, label=0)),
    "features padded to a static shape": Run(pad=Pad(mask=True, to=200)),
    "one utterance a batch": Run(per_device_train_batch_size=1),
    "spec augment": Run(WAV2VEC2, {**LAYER, "mask_time_prob": 0.3, "mask_feature_prob": 0.2}, Pad(mask=True)),
    "frozen feature encoder": Run(WAV2VEC2, change=lambda model: [model.freeze_feature_encoder(), model][1]),
    "frozen encoder": Run(WAV2VEC2, change=frozen("wav2vec2")),
    "frozen head": Run(change=frozen("lm_head"), information=("CTC603",)),
    "activation checkpointing": Run(activation_checkpointing=True),
    "evaluation in between": Run(eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=3),
    "adafactor, warm-up, restarts": Run(
        optim="adafactor", warmup_steps=3, lr_scheduler_type="cosine_with_restarts", max_grad_norm=0.1
    ),
    "silent clips": Run(empty=True, per_device_train_batch_size=3, information=("CTC204",)),
    "a processor": Run(WAV2VEC2, processing=a_processor),
    "a feature extractor only": Run(WAV2VEC2, processing=lambda tokenizer: Wav2Vec2FeatureExtractor()),
    "no tokenizer": Run(processing=lambda tokenizer: None),
    "vocabulary given": Run(processing=lambda tokenizer: None, callback={"vocabulary": SYMBOLS}),
    "vocabulary padded to a multiple of 8": Run(config={"vocab_size": 16}),
    "the head is as long as the tokenizer": Run(config={"vocab_size": len(SYMBOLS) + 2}),
}
TWINS = {"Wav2Vec2, layer norm, attention mask", "Parakeet, the blank last", "bf16", "zero_infinity", "spec augment"}


@pytest.mark.parametrize("title", MODELS)
def test_every_kind_of_model(title: str) -> None:
    MODELS[title].check(title in TWINS)


@pytest.mark.parametrize("title", OPTIONS)
def test_every_option(title: str) -> None:
    OPTIONS[title].check(title in TWINS)


def test_a_loop_of_ones_own_with_two_models_of_transformers() -> None:
    """A teacher under no_grad, a student with CTC of its own: both go through the same line of transformers."""
    torch.manual_seed(0)
    student, teacher = (of_waves(Wav2Vec2Config, Wav2Vec2ForCTC, **LAYER) for _ in range(2))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    collate, data = Pad(mask=True), utterances(waves=True, blank=0)
    with watch(on_warning="raise", vocabulary=SYMBOLS) as guard:
        for step in range(10):
            batch = collate(data[step : step + 2])
            with torch.no_grad():
                wanted = teacher(**batch).logits.log_softmax(-1)
            said = student(**batch)
            optimizer.zero_grad()
            learn = torch.nn.functional.kl_div(
                said.logits.log_softmax(-1), wanted, log_target=True, reduction="batchmean"
            )
            (said.loss + learn).backward()
            optimizer.step()
    assert guard.guard.calls == 20
    assert_clean(guard.findings)


def test_a_seq2seq_decoder_with_a_config_of_its_own_beside_the_ctc_head() -> None:
    """The loss is CTC and cross-entropy; only the CTC calls are judged."""
    torch.manual_seed(0)
    model = of_waves(Wav2Vec2Config, Wav2Vec2ForCTC, **LAYER)
    decoder = torch.nn.Linear(16, 50)
    optimizer = torch.optim.AdamW([*model.parameters(), *decoder.parameters()], lr=1e-3)
    collate, data = Pad(mask=True), utterances(waves=True, blank=0)
    with watch(on_warning="raise") as guard:
        for step in range(8):
            batch = collate(data[step : step + 3])
            said = model(**batch, output_hidden_states=True)
            words = decoder(said.hidden_states[-1].mean(1))
            optimizer.zero_grad()
            (0.0 * said.loss + torch.nn.functional.cross_entropy(words, torch.tensor([1, 2, 3]))).backward()
            optimizer.step()
    assert_clean(guard.findings)
