"""CTC106."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Wav2Vec2CTCTokenizer

from ctcguard.finding import Finding
from ctcguard.readings import Readings
from ctcguard.rules.vocabulary.lossy_round_trip import LossyRoundTrip, said
from ctcguard.vocabulary import Vocabulary
from ctcguard_integrations.hf_texts import TEXTS, texts_of

LOWER = ["<pad>", "<unk>", "|", *"abcdefghijklmnopqrstuvwxyz'"]


def tokenizer(folder: Path, symbols: list[str], **options: Any) -> Any:
    (folder / "vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "word_delimiter_token": "|"}
    return Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None, **{**names, **options})


def check(source: Any, *texts: str) -> Finding | None:
    return LossyRoundTrip().check(Readings({"vocabulary": Vocabulary.of(source), "texts": texts}))


@pytest.mark.parametrize(
    "texts",
    [
        ("hello all", "a cab", "it's off"),
        ("hello,  all!", " a-b "),  # punctuation and more spaces are not heard
        (),
    ],
)
def test_healthy(tmp_path: Path, texts: tuple[str, ...]) -> None:
    assert check(tokenizer(tmp_path, LOWER), *texts) is None


def test_upper_case_vocabulary_with_lower_case_set(tmp_path: Path) -> None:
    upper = [symbol.upper() if len(symbol) == 1 else symbol for symbol in LOWER]
    assert check(tokenizer(tmp_path, upper, do_lower_case=True), "hello all", "Off") is None


def test_a_vocabulary_without_texts_or_letters_says_nothing() -> None:
    assert check(["<pad>", "a"], "anything") is None
    assert check(30, "anything") is None


@pytest.mark.parametrize("lower_cases", [False, True])
def test_its_own_letters_must_come_back(tmp_path: Path, lower_cases: bool) -> None:
    finding = check(tokenizer(tmp_path, LOWER, do_lower_case=lower_cases))
    assert (finding is not None) is lower_cases


@pytest.mark.parametrize(
    ("symbols", "texts", "cause", "named"),
    [
        (LOWER, ("HELLO ALL", "CAB"), "letter-case", "text.lower()"),
        (LOWER, ("größe", "grün"), "characters-lost", "vocabulary from the training transcripts"),
        (LOWER, ("नमस्ते", "हिन्दी"), "characters-lost", "vocabulary from the training transcripts"),
    ],
)
def test_causes(tmp_path: Path, symbols: list[str], texts: tuple[str, ...], cause: str, named: str) -> None:
    finding = check(tokenizer(tmp_path, symbols), *texts)
    assert finding is not None
    assert finding.cause == cause
    assert named in finding.fix
    assert repr(min(texts, key=len)) in finding.message


class PlainTokenizer:
    """Characters to ids, as people write it themselves."""

    unk_token_id = 1

    def __init__(self, symbols: list[str]) -> None:
        self.ids = {symbol: i for i, symbol in enumerate(symbols)}

    def get_vocab(self) -> dict[str, int]:
        return self.ids

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [self.ids.get(c, 1) for c in text]}


def test_a_vocabulary_without_the_space() -> None:
    letters = [symbol for symbol in LOWER if symbol != "|"]
    assert check(PlainTokenizer([*letters, " "]), "hello all", "a cab") is None
    finding = check(PlainTokenizer(letters), "hello all", "a cab")
    assert finding is not None
    assert finding.cause == "spaces-lost"
    assert "word delimiter" in finding.fix


def test_one_rare_character_in_many_texts_is_healthy(tmp_path: Path) -> None:
    texts = [f"word {letter}" for letter in "abcdefghijklmnopqrstuv"]
    assert check(tokenizer(tmp_path, LOWER), *texts, "naïve") is None


def test_marks_are_said_and_punctuation_is_not() -> None:
    assert said("Don't – STOP!  ") == "dont stop"
    assert said("हिन्दी") == "हिन्दी"


class OfADisk:
    """A data set whose items cost something, or draw random numbers."""

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("an item was made")


@pytest.mark.parametrize(
    ("dataset", "texts"),
    [
        ([{"labels": [1], "text": "a"}, {"labels": [2], "text": "b"}], ("a", "b")),
        ([{"sentence": "a"}, {"sentence": None}, {"sentence": ""}], ("a",)),
        ([{"labels": [1]}], ()),
        ([], ()),
        ([{"text": str(i)} for i in range(200)], tuple(map(str, range(TEXTS)))),
        (OfADisk(), ()),
        (None, ()),
        ([{"text": "no. 12", "normalized_text": "number twelve"}], ()),  # nobody knows which the labels are made of
    ],
)
def test_texts_of_a_data_set(dataset: Any, texts: tuple[str, ...]) -> None:
    assert texts_of(dataset) == texts
