"""CTC102."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ctcguard.finding import Finding
from ctcguard.readings import Readings
from ctcguard.rules.vocabulary.blank_disagrees import BlankDisagrees
from ctcguard.vocabulary import Vocabulary

LETTERS = {0: "a", 1: "b", 2: "|", 3: "[PAD]", 4: "[UNK]", 5: "<s>", 6: "</s>"}


def tokenizer(
    symbols: dict[int, str] = LETTERS,
    blank: int | None = 3,
    unknown: int | None = 4,
    bos: int | None = 5,
    eos: int | None = 6,
    special: frozenset[int] = frozenset({3, 5, 6}),
) -> Vocabulary:
    """A tokenizer; ``special`` are the ids that no text gets."""
    return Vocabulary(symbols, max(symbols) + 1, blank, unknown, bos, eos, special)


def check(vocabulary: Any, classes: int, blank: float) -> Finding | None:
    known = {"vocabulary": Vocabulary.of(vocabulary), "classes": classes, "blank": blank}
    return BlankDisagrees().check(Readings(known))


@pytest.mark.parametrize(
    ("vocabulary", "classes", "blank"),
    [
        (tokenizer(), 7, 3),  # they agree
        (tokenizer(), 8, 7),  # NeMo: the blank comes after the vocabulary
        (tokenizer(), 64, 40),  # an id without a symbol
        (tokenizer(blank=None, special=frozenset({5, 6})), 7, 0),  # no padding is set
        (tokenizer(LETTERS | {0: "<blank>"}), 7, 0),  # a blank of its own, beside the padding
        (tokenizer(LETTERS | {0: "-"}), 7, 0),
        (tokenizer(eos=3), 7, 3),  # pad_token = eos_token, and no text gets one
        (["a", "b", "c"], 4, 3),
        (["a", "b", "c"], 4, 0),  # labels shifted by one, or not: nobody knows
        (["a", "b", "c"], 64, 0),  # the same, padded up to a multiple
        ({"a": 1, "b": 2}, 3, 0),
        (["<blank>", "a"], 2, 0),
        (["-", "a"], 2, 0),
        (["<s>", "<pad>", "</s>", "<unk>", "a"], 5, 0),  # fairseq
        (["<unk>", "a"], 2, 0),  # one in brackets may mean anything
        (["sil", "a"], 2, 0),
        (5, 5, 0),  # only the number is known
    ],
)
def test_healthy(vocabulary: Any, classes: int, blank: int) -> None:
    assert check(vocabulary, classes, blank) is None


@pytest.mark.parametrize(
    ("vocabulary", "classes", "blank", "cause", "severity"),
    [
        (tokenizer(), 7, 0, "other-blank", "error"),
        (tokenizer(), 64, 0, "other-blank", "error"),
        (["a", "b", "<blank>"], 3, 0, "other-blank", "error"),
        (["a", "b", "<blank>"], 64, 0, "other-blank", "error"),
        (["a", "b", "c"], 3, 0, "ordinary-symbol", "error"),
        (["a", "b", "c"], 3, 2, "ordinary-symbol", "error"),
        (["a", "b", "c"], 4, 1, "ordinary-symbol", "error"),
        ({" ": 0, "a": 1}, 2, 0, "ordinary-symbol", "error"),
        (["|", "a"], 2, 0, "ordinary-symbol", "error"),
        (["▁the", "a"], 2, 0, "ordinary-symbol", "error"),
        (["0", "1"], 2, 0, "ordinary-symbol", "error"),
        (tokenizer(blank=2), 7, 2, "ordinary-symbol", "error"),  # padding = word delimiter
        (tokenizer(blank=4), 7, 4, "special-symbol", "warning"),  # padding = unknown symbol
        (tokenizer(blank=5, special=frozenset()), 7, 5, "special-symbol", "error"),  # padding = bos, in every text
        (tokenizer(), 7, 4, "special-symbol", "error"),
        (tokenizer(), 7, 5, "special-symbol", "warning"),  # only the decoder is wrong
        (tokenizer(special=frozenset({3})), 7, 6, "special-symbol", "error"),
    ],
)
def test_fires(vocabulary: Any, classes: int, blank: int, cause: str, severity: str) -> None:
    finding = check(vocabulary, classes, blank)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC102", cause, severity)
    assert "must be a class that no transcript uses" in finding.message
    assert f"uses {blank} {Vocabulary.of(vocabulary).symbol(blank)!r}" in finding.message


def test_both_ids_and_symbols_are_said() -> None:
    finding = check(tokenizer(), 7, 0)
    assert finding is not None
    assert "uses 0 'a'" in finding.message
    assert finding.evidence == "the tokenizer declares 3 '[PAD]'"
    assert finding.fix == "set pad_token_id=tokenizer.pad_token_id (3) in the config, or pass blank=3 to the loss"


@pytest.mark.parametrize(
    ("vocabulary", "blank", "fix"),
    [
        (["a", "b", "<blank>"], 0, "pass blank=2"),
        (["a", "b", "c"], 0, "give the blank a class of its own, for instance blank=3 with a head of 4 classes"),
        (tokenizer(blank=2), 2, "blank=7 with a head of 8 classes"),
        (tokenizer(blank=4), 4, "give the tokenizer a padding token of its own"),
    ],
)
def test_fixes(vocabulary: Any, blank: int, fix: str) -> None:
    finding = check(vocabulary, Vocabulary.of(vocabulary).size, blank)
    assert finding is not None
    assert fix in finding.fix


def test_a_blank_that_is_no_number_is_left_to_ctc103() -> None:
    assert check(tokenizer(), 7, math.nan) is None
