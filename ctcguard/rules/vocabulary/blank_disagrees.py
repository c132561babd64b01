"""CTC102 blank-disagrees."""

from __future__ import annotations

from typing import NamedTuple

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.vocabulary._head import quoted
from ctcguard.vocabulary import Vocabulary

SPACES = frozenset({"|", "\N{LOWER ONE EIGHTH BLOCK}", "<space>", "[space]", "<sp>"})


class Cause(NamedTuple):
    """A cause slug, what selected it, what to write instead, and how bad it is."""

    slug: str
    evidence: str
    fix: str
    severity: Severity = Severity.ERROR


class BlankDisagrees(Rule):
    """## What it does

    Checks that the blank of the loss is the blank (padding) of the tokenizer, and no symbol that a transcript holds.

    ## Why is this bad?

    A symbol that serves as the blank is never learned. Hugging Face removes such labels before the loss without a
    word: the loss looks perfect and every word lacks that letter. Elsewhere they stay in the targets, alignments are
    counted several times, and the loss goes below 0. The decoder takes another class for the blank and prints noise.

    ## Likely causes

    - `other-blank`: the tokenizer declares another blank. `config.pad_token_id` was left at its default, 0, or
      `blank=` at 0.
    - `ordinary-symbol`: the blank is a letter, a digit or the space: the vocabulary has no blank of its own.
    - `special-symbol`: the blank is the unknown symbol, or the beginning or end of a sentence.

    ## How to fix

    Hugging Face: `from_pretrained(..., pad_token_id=tokenizer.pad_token_id)`. Elsewhere: pass `blank=` the index of a
    symbol that stands for nothing else. It worked when the finding is gone and every letter shows up in predictions.

    ## Thresholds

    None: ids are compared.

    ## Known problems

    A warning only where the labels themselves stay right: when the blank is `<s>` or `</s>` and no transcript gets
    one, or the unknown symbol that is the padding too. Stays silent for a blank behind the vocabulary (NeMo), a symbol
    spelt like a blank, a tokenizer without padding, and a list without a blank and one class more than symbols (labels
    may be shifted by one): CTC203 then sees the labels themselves, except those that Hugging Face removes.

    ## Example

    Fires, for the loss takes "a" for the blank:

    >>> import numpy as np, ctcguard
    >>> log_probs = np.log(np.full((1, 9, 4), 0.25))
    >>> call = dict(log_probs=log_probs, targets=[[1, 2]], input_lengths=[9], target_lengths=[2])
    >>> verdict, = ctcguard.diagnose(**call, blank=0, vocabulary=["a", "b", "c", "<blank>"])
    >>> verdict.code, verdict.cause
    ('CTC102', 'other-blank')

    Use instead:

    >>> ctcguard.diagnose(**call, blank=3, vocabulary=["a", "b", "c", "<blank>"])
    ()

    ## References

    - https://github.com/huggingface/transformers/issues/18612 (pad_token_id is not the blank)
    - https://github.com/SeanNaren/deepspeech.pytorch/issues/354 (0 in the loss, another index in the decoder)
    - https://github.com/castorini/howl/pull/47 (the blank is a label too)
    """

    code = "CTC102"
    severity = Severity.ERROR
    wants = ("vocabulary", "classes", "blank")
    causes = ("other-blank", "ordinary-symbol", "special-symbol")
    explains = ("CTC203",)
    aftermath = explains

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the blank stands for something else."""
        vocabulary: Vocabulary = readings["vocabulary"]
        blank, classes = readings["blank"], readings["classes"]
        cause = _cause(vocabulary, blank, classes)
        if cause is None:
            return None
        return self.finding(
            readings,
            cause=cause.slug,
            evidence=cause.evidence,
            message=f"the loss uses class {quoted(vocabulary, blank)} as the blank",
            fix=cause.fix,
            numbers={"blank": blank, "vocabulary_blank": vocabulary.blank, "classes": classes},
            severity=cause.severity,
        )


def _cause(vocabulary: Vocabulary, blank: int, classes: int) -> Cause | None:
    symbol = vocabulary.symbol(blank)
    undeclared = vocabulary.blank is None
    if symbol is None or (undeclared and vocabulary.kind == "tokenizer"):
        return None
    own = f"blank={vocabulary.size} with a head of {vocabulary.size + 1} classes"
    if blank == vocabulary.blank:
        return _shared(vocabulary, blank, own)
    if vocabulary.is_blank_name(blank):
        return None
    if not undeclared:
        return _other(vocabulary, blank)
    shifted_by_one = blank == 0 and classes > vocabulary.size
    if _is_ordinary(symbol) and not shifted_by_one:
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
    if _is_space(vocabulary.symbol(blank) or ""):
        return Cause(
            "ordinary-symbol", "it is the space between words too", f"give the blank a class of its own: {own}"
        )
    return None


def _other(vocabulary: Vocabulary, blank: int) -> Cause:
    evidence = f"the {vocabulary.kind} declares {quoted(vocabulary, vocabulary.blank or 0)}"
    fix = f"pass blank={vocabulary.blank}"
    if vocabulary.kind == "tokenizer":
        fix = f"set pad_token_id=tokenizer.pad_token_id ({vocabulary.blank}) in the config, or {fix} to the loss"
    if blank in (vocabulary.unknown, vocabulary.bos, vocabulary.eos):
        never = blank in vocabulary.special
        evidence += "; the decoder takes that one for the blank" if never else ", and this one stands in transcripts"
        return Cause("special-symbol", evidence, fix, Severity.WARNING if never else Severity.ERROR)
    return Cause("other-blank", evidence, fix)


def _is_space(symbol: str) -> bool:
    return symbol.isspace() or symbol.lower() in SPACES


def _is_ordinary(symbol: str) -> bool:
    """A letter, a digit or the space; a word may be anybody's name for a blank."""
    return (
        _is_space(symbol) or (len(symbol) == 1 and symbol.isalnum()) or symbol.startswith("\N{LOWER ONE EIGHTH BLOCK}")
    )
