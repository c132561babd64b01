"""A speech recogniser small enough for two cores: tokenizer, processor, model and data, as Hugging Face has them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

import numpy as np

from ctcguard.demo.speech import DIGITS, SAMPLING_RATE, Utterance, Waveform

if TYPE_CHECKING:
    import torch
    from transformers import Wav2Vec2BertForCTC, Wav2Vec2BertProcessor

MODEL_RATE: Final = 16_000
SYMBOLS: Final = ("<pad>", "<unk>", "|", *sorted(set("".join(DIGITS))))

# 22,050 Hz and 16,000 Hz meet in blocks of 441 and 320 samples; the factor 8 keeps the FFT away from prime lengths.
_BLOCK_IN, _BLOCK_OUT = 441 * 8, 320 * 8


class Example(TypedDict):
    """What the Trainer's data set holds: features (frames, 160) of 20 ms each, and the labels of the transcript."""

    input_features: np.ndarray[Any, np.dtype[np.float32]]
    labels: list[int]


def resample(waveform: Waveform) -> Waveform:
    """From 22,050 Hz to 16,000 Hz, band-limited.

    Parameters
    ----------
    waveform : float32 array, (samples,)
        At 22,050 Hz.

    Returns
    -------
    float32 array, (round(samples × 320 / 441),)
        At 16,000 Hz.
    """
    wanted = round(len(waveform) * MODEL_RATE / SAMPLING_RATE)
    padded = np.pad(waveform, (0, -len(waveform) % _BLOCK_IN))
    size = len(padded) // _BLOCK_IN * _BLOCK_OUT
    spectrum = np.fft.rfft(padded)[: size // 2 + 1]
    resampled: Waveform = (np.fft.irfft(spectrum, size) * (size / len(padded)))[:wanted].astype(np.float32)
    return resampled


def make_processor() -> Wav2Vec2BertProcessor:
    """Log-mel features and a tokenizer of the letters of the digit words; the blank is ``<pad>``, id 0."""
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertProcessor, Wav2Vec2CTCTokenizer

    with tempfile.TemporaryDirectory() as directory:
        vocabulary = Path(directory) / "vocab.json"
        vocabulary.write_text(json.dumps({symbol: index for index, symbol in enumerate(SYMBOLS)}), encoding="utf-8")
        tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary), bos_token=None, eos_token=None)
    return Wav2Vec2BertProcessor(SeamlessM4TFeatureExtractor(), tokenizer)


def make_model(processor: Wav2Vec2BertProcessor, **changes: Any) -> Wav2Vec2BertForCTC:
    """A Wav2Vec2-BERT of 448,250 parameters, freshly initialised, as wide as the tokenizer.

    Parameters
    ----------
    processor : Wav2Vec2BertProcessor
        Gives the number of classes and the blank.
    **changes
        Fields of the configuration, for instance ``ctc_zero_infinity=True``.

    Returns
    -------
    Wav2Vec2BertForCTC
        No dropout: there is too little time to need it.
    """
    from transformers import Wav2Vec2BertConfig, Wav2Vec2BertForCTC

    off = ("hidden", "attention", "feat_proj", "final", "activation")
    fields: dict[str, Any] = {f"{name}_dropout": 0.0 for name in off}
    fields |= {"layerdrop": 0.0, "conformer_conv_dropout": 0.0, "apply_spec_augment": False}
    fields |= {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 192}
    fields |= {"conv_depthwise_kernel_size": 15, "ctc_loss_reduction": "mean"}
    fields |= {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id}
    return Wav2Vec2BertForCTC(Wav2Vec2BertConfig(**{**fields, **changes}))


def examples(utterances: Sequence[Utterance], processor: Wav2Vec2BertProcessor) -> list[Example]:
    """Features and labels.

    Parameters
    ----------
    utterances : sequence of Utterance
        Waveforms at 22,050 Hz and their transcripts.
    processor : Wav2Vec2BertProcessor
        From `make_processor`.

    Returns
    -------
    list of Example
        One an utterance, in the same order.
    """
    found: list[Example] = []
    for utterance in utterances:
        made = processor(audio=[resample(utterance.waveform)], text=[utterance.text], sampling_rate=MODEL_RATE)
        found.append({"input_features": made["input_features"][0], "labels": made["labels"][0]})
    return found


class Collator:
    """Pads a batch, as in Hugging Face's fine-tuning recipe: labels beyond the transcript become -100.

    Parameters
    ----------
    processor : Wav2Vec2BertProcessor
        Pads features and labels, each in its own way.
    """

    def __init__(self, processor: Wav2Vec2BertProcessor) -> None:
        self._processor = processor

    def __call__(self, batch: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Features (batch, frames, 160), attention mask (batch, frames) and labels (batch, labels)."""
        features = [{"input_features": example["input_features"]} for example in batch]
        labels = [{"input_ids": example["labels"]} for example in batch]
        padded = dict(self._processor.pad(input_features=features, padding=True, return_tensors="pt"))
        texts = self._processor.pad(labels=labels, padding=True, return_tensors="pt")
        return padded | {"labels": texts["input_ids"].masked_fill(texts["attention_mask"].ne(1), -100)}


def transcribe(
    model: torch.nn.Module, processor: Wav2Vec2BertProcessor, data: Sequence[Example], batch_size: int = 50
) -> list[str]:
    """What the model hears: the best class of each valid frame, repeats and blanks removed.

    Parameters
    ----------
    model : Wav2Vec2BertForCTC
        Left in evaluation mode.
    processor : Wav2Vec2BertProcessor
        Whose tokenizer decodes.
    data : sequence of Example
        The labels are not looked at.
    batch_size : int
        Utterances at once.

    Returns
    -------
    list of str
        One text an example, in the same order.
    """
    import torch

    model.eval()
    collate = Collator(processor)
    texts: list[str] = []
    for start in range(0, len(data), batch_size):
        batch = collate(data[start : start + batch_size])
        batch.pop("labels")
        with torch.no_grad():
            classes = model(**batch).logits.argmax(-1)
        frames = batch["attention_mask"].sum(-1).tolist()
        texts += [processor.decode(row[:count]) for row, count in zip(classes, frames, strict=True)]
    return texts
