"""What a Hugging Face Trainer is given fails when the guard looks at it: the training goes on, and is the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import Trainer

from ctcguard import CTCGuard
from ctcguard.finding import Finding
from tests.integrations.test_hf_trainer import SYMBOLS, a_trainer, same, speech, weights

ONCE = {"num_train_epochs": 1, "eval_strategy": "no"}


class Sulking:
    """A tokenizer that says nothing of its symbols."""

    def get_vocab(self) -> dict[str, int]:
        raise OSError("the vocabulary has been moved")

    def save_pretrained(self, folder: str) -> None:
        """Nothing to save."""


class Listed(list[dict[str, Any]]):
    """Clips with texts, one of which is not what it should be."""

    def __getitem__(self, index: Any) -> Any:
        return [{"text": "a b"}, None, 3] if isinstance(index, slice) else super().__getitem__(index)


def trained(tokenizer: Any, **options: Any) -> Trainer:
    trainer = a_trainer(tokenizer, **{**ONCE, **options})
    trainer.train()
    return trainer


def faults(guard: CTCGuard) -> list[Finding]:
    assert guard.watch is not None
    return [finding for finding in guard.watch.findings if finding.severity != "information"]


def test_a_tokenizer_that_raises() -> None:
    plain = trained(Sulking(), output_dir="plain")
    guard = CTCGuard(on_warning="raise")
    guarded = trained(Sulking(), output_dir="guarded", callbacks=[guard])
    assert same(weights(plain), weights(guarded))
    [fault] = faults(guard)
    assert (fault.code, fault.readings["where"]) == ("CTC902", "processing_class")
    assert "the vocabulary has been moved" in fault.message
    assert guard.watch is not None
    assert guard.watch.guard.calls == 8


def test_a_data_set_whose_texts_cannot_be_read() -> None:
    vocabulary = dict.fromkeys(SYMBOLS)
    guard = CTCGuard(on_error="alert", vocabulary=[*vocabulary, "k", "l"])
    data = Listed(speech())
    plain = trained(None, output_dir="plain", data=data)
    guarded = trained(None, output_dir="guarded", data=data, callbacks=[guard])
    assert same(weights(plain), weights(guarded))
    assert {finding.code for finding in faults(guard)} == {"CTC101", "CTC902"}
    [fault] = [finding for finding in faults(guard) if finding.code == "CTC902"]
    assert fault.readings["where"] == "texts of the data set"


def test_a_checkpoint_whose_state_is_damaged() -> None:
    epochs = {"num_train_epochs": 2, "save_strategy": "epoch"}
    plain = trained(None, output_dir="plain", **epochs)
    first = trained(None, output_dir="guarded", callbacks=[CTCGuard()], **epochs)
    assert same(weights(plain), weights(first))
    state = Path("guarded/checkpoint-4/ctcguard-rank0.json")
    json.loads(state.read_text())
    for damage in ("", "[]", '{"schema": 1, "step": 4, "history": {}}'):
        state.write_text(damage)
        guard = CTCGuard(on_warning="raise")
        options = {**ONCE, **epochs, "save_strategy": "no"}
        resumed = a_trainer(None, **options, output_dir="guarded", callbacks=[guard])
        resumed.train(resume_from_checkpoint="guarded/checkpoint-4")
        assert same(weights(plain), weights(resumed))
        assert [finding.code for finding in faults(guard)] == ["CTC902"]
