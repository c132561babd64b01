"""Why an index cannot be the blank of a vocabulary."""

from __future__ import annotations

from typing import NamedTuple

from ctcguard.finding import Severity
from ctcguard.rules.vocabulary._head import quoted
from ctcguard.vocabulary import Vocabulary

SPACES = frozenset({"|", "\N{LOWER ONE EIGHTH BLOCK}", "<space>", "[space]", "<sp>"})


class Cause(NamedTuple):
    """A cause slug, what selected it, what to write instead, and how bad it is."""

    slug: str
    evidence: str
    fix: str
    severity: Severity = Severity.ERROR


def is_space(symbol: str) -> bool:
    """Whether a symbol stands for the space between words."""
    return symbol.isspace() or symbol.lower() in SPACES


def is_ordinary(symbol: str) -> bool:
    """Whether it is a letter, a digit or the space; a whole word may be anybody's name for a blank."""
    piece = symbol.startswith("\N{LOWER ONE EIGHTH BLOCK}")
    return is_space(symbol) or piece or (len(symbol) == 1 and symbol.isalnum())


def why_wrong(vocabulary: Vocabulary, blank: int, classes: int) -> Cause | None:
    """The cause, or None where the blank is right or nothing certain can be said."""
    symbol = vocabulary.symbol(blank)
    undeclared = vocabulary.blank is None
    if symbol is None or (undeclared and vocabulary.kind == "tokenizer"):
        return None
    if vocabulary.blank is not None and vocabulary.blank >= classes:
        return None  # the head has no class for it: CTC101
    own = f"blank={vocabulary.size} with a head of {vocabulary.size + 1} classes"
    if blank == vocabulary.blank:
        return _shared(vocabulary, blank, own)
    bracketed = len(symbol) > 1 and symbol[0] in "<["
    if vocabulary.is_blank_name(blank) or (bracketed and vocabulary.kind != "tokenizer"):
        return None  # fairseq's blank is "<s>": only a tokenizer says what it does with such a symbol
    if not undeclared:
        return _other(vocabulary, blank)
    shifted_by_one = blank == 0 and classes > vocabulary.size
    if is_ordinary(symbol) and not shifted_by_one:
        fix = f"give the blank a class of its own, for instance {own}"
        return Cause("ordinary-symbol", f"{symbol!r} is a symbol of transcripts, and the vocabulary has no blank", fix)
    return None


def _shared(vocabulary: Vocabulary, blank: int, own: str) -> Cause | None:
    """The tokenizer agrees, but its padding stands for something else as well."""
    fix = "give the tokenizer a padding token of its own, and set pad_token_id=tokenizer.pad_token_id in the config"
    if blank == vocabulary.unknown:
        evidence = "padding and unknown symbol are one: unknown characters count as blanks"
        return Cause("special-symbol", evidence, fix, Severity.WARNING)
    if blank in (vocabulary.bos, vocabulary.eos) and blank not in vocabulary.special:
        return Cause("special-symbol", "the tokenizer adds this symbol to every text", fix)
    if is_space(vocabulary.symbol(blank) or ""):
        fix = f"give the blank a class of its own: {own}"
        return Cause("ordinary-symbol", "it is the space between words too", fix)
    return None


def _other(vocabulary: Vocabulary, blank: int) -> Cause:
    evidence = f"the {vocabulary.kind} declares {quoted(vocabulary, vocabulary.blank or 0)}"
    fix = f"pass blank={vocabulary.blank}"
    if vocabulary.kind == "tokenizer":
        fix = f"set pad_token_id=tokenizer.pad_token_id ({vocabulary.blank}) in the config, or {fix} to the loss"
    never = blank in vocabulary.special
    if never or blank in (vocabulary.unknown, vocabulary.bos, vocabulary.eos):
        evidence += "; the decoder takes that one for the blank" if never else ", and this one stands in transcripts"
        return Cause("special-symbol", evidence, fix, Severity.WARNING if never else Severity.ERROR)
    return Cause("other-blank", evidence, fix)
