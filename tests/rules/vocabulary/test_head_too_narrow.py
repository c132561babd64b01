"""CTC101."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Wav2Vec2CTCTokenizer

import ctcguard
from ctcguard.finding import Finding
from ctcguard.readings import Readings
from ctcguard.rules.vocabulary.head_too_narrow import HeadTooNarrow
from ctcguard.vocabulary import Vocabulary


def check(vocabulary: Any, classes: float) -> Finding | None:
    return HeadTooNarrow().check(Readings({"vocabulary": Vocabulary.of(vocabulary), "classes": classes}))


def hf_tokenizer(folder: Path) -> Any:
    file = folder / "vocab.json"
    file.write_text(json.dumps({symbol: i for i, symbol in enumerate(["[PAD]", "[UNK]", "|", *"abc"])}))
    return Wav2Vec2CTCTokenizer(str(file), unk_token="[UNK]", pad_token="[PAD]")


@pytest.mark.parametrize(
    ("vocabulary", "classes"),
    [
        (["<pad>", "a", "b"], 3),
        (["<pad>", "a", "b"], 64),  # padded up to a multiple
        (["a", "b"], 3),  # the blank comes after the vocabulary
        ({"<pad>": 0, "a": 1, "<s>": 2, "</s>": 3}, 2),  # these never occur
        (["a", "b", "<blank>"], 2),  # CTC103 is about the blank
        (3, 3),
    ],
)
def test_healthy(vocabulary: Any, classes: int) -> None:
    assert check(vocabulary, classes) is None


def test_sentence_symbols_of_a_tokenizer_never_occur(tmp_path: Path) -> None:
    tokenizer = hf_tokenizer(tmp_path)
    assert len(tokenizer) == 8
    assert check(tokenizer, 6) is None


def test_tokenizer(tmp_path: Path) -> None:
    finding = check(hf_tokenizer(tmp_path), 5)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC101", "missing-classes", "error")
    assert "ids up to 5" in finding.message
    assert "5 classes (0 … 4)" in finding.message
    assert finding.evidence == "no class for 5 'c'"
    assert "vocab_size=len(tokenizer), at least 6 classes, not 5" in finding.fix
    assert "from_pretrained(..., vocab_size=len(tokenizer)" in finding.fix


def test_first_five_symbols_are_named() -> None:
    finding = check(["<pad>", *"abcdefgh"], 2)
    assert finding is not None
    assert finding.evidence == "no class for 2 'b', 3 'c', 4 'd', 5 'e', 6 'f' … (7 in all)"
    assert "vocab_size=len(vocabulary): at least 9 classes, not 2" in finding.fix
    assert finding.readings == {"largest_id": 8, "classes": 2, "missing": 7}


def test_number_has_no_symbols() -> None:
    finding = check(4, 3)
    assert finding is not None
    assert finding.evidence == "no class for 3"
    assert finding.fix == "give the head at least 4 classes, not 3"


def test_nan_fires() -> None:
    assert check(["<pad>", "a"], math.nan) is not None


def test_it_explains_the_label() -> None:
    known = {"blank": 0, "vocabulary": ["<pad>", *"abcd"]}
    call: dict[str, Any] = {"targets": [[1, 4]], "input_lengths": [9], "target_lengths": [2], **known}
    (verdict,) = ctcguard.diagnose(log_probs=np.log(np.full((1, 9, 4), 0.25)), **call)
    assert [finding.code for finding in verdict.findings()] == ["CTC101", "CTC201"]
    assert verdict.also[0].cause == "head-too-narrow"
    assert ctcguard.diagnose(log_probs=np.log(np.full((1, 9, 5), 0.2)), **call) == ()
