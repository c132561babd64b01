"""What is read from tokenizers, processors, lists, dicts and numbers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, Wav2Vec2CTCTokenizer

from ctcguard.errors import SettingsError
from ctcguard.vocabulary import Vocabulary

IDS = {"[PAD]": 0, "[UNK]": 1, "|": 2, "a": 3, "b": 4}


@pytest.fixture
def ctc_tokenizer(tmp_path: Path) -> Any:
    """vocab.json has 5 symbols; the tokenizer adds `<s>` and `</s>` behind them, as in every fine-tuning."""
    file = tmp_path / "vocab.json"
    file.write_text(json.dumps(IDS))
    return Wav2Vec2CTCTokenizer(str(file), unk_token="[UNK]", pad_token="[PAD]", word_delimiter_token="|")


def raw_tokenizer(template: str) -> Any:
    ids = {"<pad>": 0, "<unk>": 1, "a": 2, "b": 3, "<s>": 4, "</s>": 5}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 4), ("</s>", 5)])
    return tokenizer


def fast_tokenizer(template: str, **declared: str) -> Any:
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | declared
    return PreTrainedTokenizerFast(tokenizer_object=raw_tokenizer(template), **names)


def test_ctc_tokenizer(ctc_tokenizer: Any) -> None:
    vocabulary = Vocabulary.of(ctc_tokenizer)
    assert len(ctc_tokenizer) == vocabulary.size == 7
    assert (vocabulary.blank, vocabulary.unknown, vocabulary.bos, vocabulary.eos) == (0, 1, 5, 6)
    assert vocabulary.kind == "tokenizer"


def test_symbols_that_no_text_turns_into_are_not_emittable(ctc_tokenizer: Any) -> None:
    """transformers 5 counts the word delimiter among the special tokens, but every text with two words has one."""
    assert 2 in ctc_tokenizer.all_special_ids
    assert Vocabulary.of(ctc_tokenizer).emittable() == (1, 2, 3, 4)


def test_labels_become_text(ctc_tokenizer: Any) -> None:
    vocabulary = Vocabulary.of(ctc_tokenizer)
    assert vocabulary.text([3, 3, 2, 4]) == "aa b"
    assert vocabulary.text([3, 99]) == "a\N{REPLACEMENT CHARACTER}"
    assert vocabulary.symbol(3) == "a"
    assert vocabulary.symbol(99) is None


def test_processor_is_its_tokenizer(ctc_tokenizer: Any) -> None:
    processor = SimpleNamespace(tokenizer=ctc_tokenizer, feature_extractor=object())
    assert Vocabulary.of(processor) == Vocabulary.of(ctc_tokenizer) == Vocabulary.found_in(processor)
    assert Vocabulary.found_in(object()) is None


def test_bos_and_eos_count_when_the_tokenizer_adds_them() -> None:
    assert Vocabulary.of(fast_tokenizer("$A")).emittable() == (1, 2, 3)
    assert Vocabulary.of(fast_tokenizer("<s> $A </s>")).emittable() == (1, 2, 3, 4, 5)
    assert Vocabulary.of(fast_tokenizer("$A </s>")).emittable() == (1, 2, 3, 5)


def test_undeclared_special_tokens_are_known_by_their_spelling() -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=raw_tokenizer("$A"))
    for tokenizer in (bare, raw_tokenizer("$A")):
        vocabulary = Vocabulary.of(tokenizer)
        assert vocabulary.blank is None
        assert vocabulary.emittable() == (1, 2, 3)


def test_tokenizer_that_refuses_to_be_called() -> None:
    def refuse(text: str) -> None:
        raise RuntimeError("no phonemizer")

    class Refusing:
        all_special_ids = (0,)
        pad_token_id = 0
        __call__ = staticmethod(refuse)

        def get_vocab(self) -> dict[str, int]:
            return {"<pad>": 0, "a": 1}

    assert Vocabulary.of(Refusing()).emittable() == (1,)


@pytest.mark.parametrize(
    ("source", "kind", "size", "blank", "emittable"),
    [
        (["<blank>", "a", "b"], "list", 3, 0, (1, 2)),
        (("a", "b", "<PAD>"), "list", 3, 2, (0, 1)),
        (["-", "a"], "list", 2, None, (0, 1)),  # a hyphen may be said
        (["a", "a"], "list", 2, None, (0, 1)),  # both ids stay
        (["<blank>", "a", "<pad>"], "list", 3, None, (1,)),  # two names: nothing is declared
        ({"<pad>": 0, "a": 2, "<s>": 3}, "dict", 4, 0, (2,)),
        ({0: "<pad>", 2: "a"}, "dict", 3, 0, (2,)),
        ({"a": np.int64(1)}, "dict", 2, None, (1,)),
        (3, "number", 3, None, (0, 1, 2)),
        (np.int32(2), "number", 2, None, (0, 1)),
    ],
)
def test_plain_vocabularies(source: Any, kind: str, size: int, blank: int | None, emittable: tuple[int, ...]) -> None:
    vocabulary = Vocabulary.of(source)
    assert (vocabulary.kind, vocabulary.size, vocabulary.blank) == (kind, size, blank)
    assert vocabulary.emittable() == emittable
    assert Vocabulary.of(vocabulary) is vocabulary


def test_number_has_no_text() -> None:
    assert Vocabulary.of(5).text([1, 2]) is None


@pytest.mark.parametrize("name", ["<pad>", "[PAD]", "<blank>", "blank", "<BLK>", "-", "_", "ε", "<|blank|>"])
def test_spellings_of_a_blank(name: str) -> None:
    assert Vocabulary.of([name, "a"]).is_blank_name(0)
    assert not Vocabulary.of([name, "a"]).is_blank_name(1)


def test_id_without_a_symbol_may_be_the_blank() -> None:
    assert Vocabulary.of({"a": 1}).is_blank_name(0)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (object(), "of type object"),
        ("abc", "of type str"),
        (3.5, "3.5"),
        (True, "True"),
        (0, "0"),
        (-1, "-1"),
        ([], "[]"),
        ({}, "{}"),
        (np.zeros(3), "of type ndarray"),
    ],
)
def test_unknown_kinds(source: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=r"give a tokenizer .* a list .* a dict .* the number") as error:
        Vocabulary.of(source)
    assert f"cannot be {said}:" in str(error.value)


@pytest.mark.parametrize("source", [{"a": "b"}, {"a": -1}, {"a": 1.5}, {1: 2}, {"a": None}])
def test_dicts_of_something_else(source: Any) -> None:
    with pytest.raises(SettingsError, match="symbols to class indices"):
        Vocabulary.of(source)
