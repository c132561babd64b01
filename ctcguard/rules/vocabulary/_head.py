"""What to write when the head has too few classes."""

from __future__ import annotations

from ctcguard.vocabulary import Vocabulary


def wider_head(vocabulary: Vocabulary | None, classes: float, needed: float) -> str:
    """The fix for a head that lacks classes, in the words of whoever built the vocabulary."""
    numbers = f"at least {needed:.0f} classes, not {classes:.0f}"
    if vocabulary is None:
        return f"give the head a class for every id of the tokenizer, vocab_size=len(tokenizer): {numbers}"
    if vocabulary.kind == "tokenizer":
        call = "from_pretrained(..., vocab_size=len(tokenizer), ignore_mismatched_sizes=True)"
        return f"build the head with vocab_size=len(tokenizer), {numbers}: {call}"
    size = "" if vocabulary.kind == "number" else "a class for every symbol, vocab_size=len(vocabulary): "
    return f"give the head {size}{numbers}"


def quoted(vocabulary: Vocabulary | None, label: int) -> str:
    """An id with its symbol, where that is known: ``31 '[PAD]'``."""
    symbol = None if vocabulary is None else vocabulary.symbol(label)
    return f"{label}" if symbol is None else f"{label} {symbol!r}"
