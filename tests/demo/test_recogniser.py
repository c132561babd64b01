"""Features, tokenizer, batches and model fit together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers import Wav2Vec2BertProcessor

from ctcguard.demo.recogniser import (
    SYMBOLS,
    Collator,
    Example,
    examples,
    make_model,
    make_processor,
    resample,
    transcribe,
)
from ctcguard.demo.speech import DIGITS, SAMPLING_RATE, Utterance, spoken_digits


@pytest.fixture(scope="module")
def processor() -> Wav2Vec2BertProcessor:
    return make_processor()


@pytest.fixture(scope="module")
def utterances() -> list[Utterance]:
    return spoken_digits(12, seed=21)


@pytest.fixture(scope="module")
def data(utterances: list[Utterance], processor: Wav2Vec2BertProcessor) -> list[Example]:
    return examples(utterances, processor)


@pytest.mark.parametrize("hertz", [100.0, 440.0, 3000.0])
def test_resampling_keeps_a_tone(hertz: float) -> None:
    tone = np.sin(2 * np.pi * hertz * np.arange(SAMPLING_RATE) / SAMPLING_RATE).astype(np.float32)
    resampled = resample(tone)
    assert resampled.dtype == np.float32
    assert len(resampled) == 16_000
    wanted = np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000)
    middle = slice(2000, -2000)
    np.testing.assert_allclose(resampled[middle], wanted[middle], atol=0.02)


def test_resampling_removes_what_16_khz_cannot_hold() -> None:
    tone = np.sin(2 * np.pi * 10_000 * np.arange(SAMPLING_RATE) / SAMPLING_RATE).astype(np.float32)
    assert np.abs(resample(tone)[1000:-1000]).max() < 0.02


def test_every_transcript_comes_back(processor: Wav2Vec2BertProcessor) -> None:
    text = " ".join(DIGITS)
    labels = processor.tokenizer(text).input_ids
    assert processor.tokenizer.unk_token_id not in labels
    assert processor.tokenizer.decode(labels, group_tokens=False) == text


def test_the_blank_is_the_padding_and_every_symbol_has_an_id(processor: Wav2Vec2BertProcessor) -> None:
    assert processor.tokenizer.pad_token_id == 0
    assert processor.tokenizer.convert_tokens_to_ids(list(SYMBOLS)) == list(range(len(processor.tokenizer)))


def test_features_are_finite_and_as_long_as_the_sound(utterances: list[Utterance], data: list[Example]) -> None:
    for utterance, example in zip(utterances, data, strict=True):
        frames, width = example["input_features"].shape
        assert width == 160
        assert frames == pytest.approx(utterance.duration_s / 0.02, abs=2)
        assert np.isfinite(example["input_features"]).all()
        assert example["input_features"].std() == pytest.approx(1, abs=0.1)


def test_every_utterance_has_an_alignment(data: list[Example]) -> None:
    for example in data:
        labels = example["labels"]
        assert len(example["input_features"]) >= len(labels) + sum(a == b for a, b in pairwise(labels))


def test_a_batch_is_padded(data: list[Example], processor: Wav2Vec2BertProcessor) -> None:
    batch = Collator(processor)(data)
    frames = [len(example["input_features"]) for example in data]
    assert batch["input_features"].shape == (len(data), max(frames), 160)
    assert batch["attention_mask"].sum(-1).tolist() == frames
    for row, example in zip(batch["labels"], data, strict=True):
        count = len(example["labels"])
        assert row[:count].tolist() == example["labels"]
        assert (row[count:] == -100).all()


def test_the_model_has_a_class_for_every_symbol(data: list[Example], processor: Wav2Vec2BertProcessor) -> None:
    torch.manual_seed(0)
    model = make_model(processor)
    assert 400_000 < model.num_parameters() < 500_000
    output = model(**Collator(processor)(data[:2]))
    assert output.logits.shape[-1] == len(SYMBOLS) == model.config.vocab_size
    assert output.loss.isfinite()


def test_transcripts_do_not_depend_on_padding(data: list[Example], processor: Wav2Vec2BertProcessor) -> None:
    torch.manual_seed(0)
    model = make_model(processor)
    together = transcribe(model, processor, data)
    assert together == transcribe(model, processor, data, batch_size=1)
    assert len(together) == len(data)
    assert any(together)
