"""The case in Flax and optax: its data are sound, and without its mistake it is seen to fail."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from ctcguard import CTCVerdictError, guard_step
from ctcguard.demo import free_labels
from ctcguard.demo.features import BANDS, log_mel
from ctcguard.demo.free_labels import BATCH, WIDTH, Batch, Size, encode, make_batches, make_model, make_train_step
from ctcguard.demo.recogniser import SYMBOLS, make_processor
from ctcguard.demo.screen import Screen, quiet
from ctcguard.demo.speech import DIGITS, Utterance, spoken_digits
from ctcguard.demo.training import Stage


@pytest.fixture(scope="module")
def utterances() -> list[Utterance]:
    return spoken_digits(2 * BATCH, seed=6)


@pytest.fixture(scope="module")
def batches(utterances: list[Utterance]) -> list[Batch]:
    return make_batches(utterances)


def test_labels_are_those_of_the_tokenizer() -> None:
    text = " ".join(DIGITS)
    assert encode(text).tolist() == make_processor().tokenizer(text).input_ids


def test_batches_hold_each_utterance_and_its_padding(utterances: list[Utterance], batches: list[Batch]) -> None:
    assert len({tuple(array.shape for array in batch) for batch in batches}) == 1
    rows = [row for batch in batches for row in zip(*batch, strict=True)]
    for utterance, (features, frame_padding, labels, label_padding) in zip(utterances, rows, strict=True):
        wanted, text = log_mel(utterance.waveform), encode(utterance.text)
        np.testing.assert_array_equal(features[: len(wanted)], wanted)
        np.testing.assert_array_equal(labels[: len(text)], text)
        assert frame_padding.tolist() == [0] * len(wanted) + [1] * (len(features) - len(wanted))
        assert label_padding.tolist() == [0] * len(text) + [1] * (len(labels) - len(text))


def test_every_utterance_has_an_alignment(batches: list[Batch]) -> None:
    for batch in batches:
        frames, lengths = ((1 - paddings).sum(-1) for paddings in (batch.frame_paddings, batch.label_paddings))
        for count, length, labels in zip(frames, lengths, batch.labels, strict=True):
            assert count >= length + sum(a == b for a, b in pairwise(labels[: int(length)]))


def test_the_model_is_the_same_each_time_and_its_weights_are_compared_bit_by_bit(batches: list[Batch]) -> None:
    model = make_model()
    assert model(batches[0].features[..., :BANDS]).shape == (*batches[0].frame_paddings.shape, WIDTH)
    before = free_labels.weights(model)
    assert before == free_labels.weights(make_model())
    model.layers[0].bias[...] = model.layers[0].bias[...].at[3].set(-0.0)
    assert before != free_labels.weights(model)


def test_with_the_tokenizer_the_head_alone_is_enough(batches: list[Batch]) -> None:
    within = batches[0]._replace(labels=np.minimum(batches[0].labels, WIDTH - 1))
    step = guard_step(make_train_step(), vocabulary=make_processor().tokenizer, sinks=(), run_dir="run")
    with pytest.raises(CTCVerdictError) as caught:
        list(free_labels.train(step, make_model(), [within], steps=1))
    step.close()
    root = caught.value.verdict.root
    assert (root.code, root.cause, root.step) == ("CTC101", "missing-classes", 0)
    assert all(repr(symbol) in root.evidence for symbol in SYMBOLS[WIDTH:])


def test_a_mistake_that_was_not_made_fails_the_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_labels, "WIDTH", len(SYMBOLS))
    monkeypatch.setattr(free_labels, "QUICK", Size(utterances=2 * BATCH, steps=9, shown_every=4))
    file = io.StringIO()
    with quiet():
        assert not free_labels.run(Stage(Screen(Console(file=file, width=80)), tmp_path, quick=True))
    text = " ".join(file.getvalue().split())
    assert "below zero one utterance never, the mean never" in text
    assert "FAILED expected one verdict, CTC201, and there were 0 []" in text
    assert "the mean loss did not fall below zero; the training was not stopped; weights changed" in text
    assert not jax.config.read("jax_disable_most_optimizations")
