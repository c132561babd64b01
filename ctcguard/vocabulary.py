"""What a tokenizer, processor, list, dict or number says about the classes of a CTC head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from typing import Any

from ctcguard.errors import SettingsError

# fmt: off
BLANK_NAMES = frozenset([
    "<pad>", "[pad]", "<|pad|>", "<blank>", "[blank]", "<|blank|>", "blank", "<blk>", "[blk]", "<b>", "<null>",
    "<ctc>", "[ctc]", "<ctc_blank>", "<ctc-blank>", "<eps>", "ε", "ϵ", "", "_", "-", "~", "∅", "·",
])
# fmt: on
"""Spellings that mean a CTC blank when they are a symbol of their own (compared in lower case)."""
UNKNOWN_NAMES = frozenset({"<unk>", "[unk]", "<|unk|>", "<unknown>", "[unknown]", "\N{DOUBLE QUESTION MARK}"})
"""Spellings of the symbol for whatever the vocabulary lacks (lower case)."""
SPECIAL_NAMES = BLANK_NAMES | {
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "<sos>",
    "<sos/eos>",
    "<mask>",
    "[cls]",
    "[sep]",
    "[mask]",
}
"""Spellings of symbols that no transcript turns into, for vocabularies that do not say so themselves (lower case)."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Symbols by class index.

    Attributes
    ----------
    symbols : dict of int to str
        Every id that is known by name.
    size : int
        Ids 0 … size - 1 (one more than the largest id).
    blank : int or None
        The blank (pad) that the vocabulary itself declares.
    unknown, bos, eos : int or None
        Ids of those special symbols.
    special : frozenset of int
        Ids that no transcript turns into: padding, and bos/eos unless the tokenizer adds them to every text.
    kind : str
        What it was made from, for messages: ``"tokenizer"``, ``"list"``, ``"dict"`` or ``"number"``.
    """

    symbols: Mapping[int, str]
    size: int
    blank: int | None = None
    unknown: int | None = None
    bos: int | None = None
    eos: int | None = None
    special: frozenset[int] = frozenset()
    kind: str = "tokenizer"
    _decode: Callable[[list[int]], str] | None = field(default=None, compare=False)
    _encode: Callable[[str], list[int]] | None = field(default=None, compare=False)

    def emittable(self) -> tuple[int, ...]:
        """Ids that a transcript can turn into, in ascending order."""
        ids = self.symbols or range(self.size)
        return tuple(sorted(i for i in ids if i not in self.special))

    def symbol(self, label: int) -> str | None:
        """The symbol of an id, or None."""
        return self.symbols.get(label)

    def text(self, labels: Sequence[int]) -> str | None:
        """Labels as text, adjacent repeats kept; None when the symbols are not known."""
        if not self.symbols:
            return None
        if self._decode is not None:
            return self._decode([int(label) for label in labels])
        return "".join(self.symbols.get(int(label), "\N{REPLACEMENT CHARACTER}") for label in labels)

    def round_trip(self, text: str) -> str | None:
        """A text, tokenized and put together again without special and unknown symbols; None when nobody can tell."""
        labels = [] if self._encode is None else self._encode(text)
        known = [label for label in labels if label != self.unknown and label not in self.special]
        return self.text(known) if labels else None

    def own_word(self) -> tuple[str, ...]:
        """One word made of up to eight of the vocabulary's own letters; empty when it has none."""
        symbols = (self.symbol(i) or "" for i in self.emittable())
        letters = [symbol for symbol in symbols if len(symbol) == 1 and symbol.isalpha()]
        return ("".join(letters[:8]),) if letters else ()

    def is_blank_name(self, label: int) -> bool:
        """Whether the symbol of an id is spelt like a blank, or the id has no symbol at all."""
        return self.symbols.get(label, "").lower() in BLANK_NAMES

    @classmethod
    def of(cls, source: Any) -> Vocabulary:
        """Read a vocabulary from whatever the user has.

        Parameters
        ----------
        source : tokenizer, processor, sequence of str, mapping or int
            A Hugging Face tokenizer or a processor that holds one, symbols in the order of their classes, symbol to
            id (or id to symbol), or the number of ids.

        Raises
        ------
        SettingsError
            For anything else; the message lists what is accepted.

        Examples
        --------
        >>> Vocabulary.of(["<blank>", "a", "b"]).text([1, 2])
        'ab'
        """
        if isinstance(source, Vocabulary):
            return source
        number = _whole(source)
        if number is not None and number > 0:
            return cls({}, number, kind="number")
        if isinstance(source, Mapping) and source:
            return _from_mapping(source)
        if isinstance(source, Sequence) and not isinstance(source, str | bytes) and source:
            return _from_mapping({i: str(symbol) for i, symbol in enumerate(source)}, kind="list")
        tokenizer = getattr(source, "tokenizer", source)
        if callable(getattr(tokenizer, "get_vocab", None)):
            return _from_tokenizer(tokenizer)
        raise SettingsError(
            f"vocabulary= cannot be {_kind(source)}: give a tokenizer or processor with get_vocab(), "
            "a list of symbols in class order, a dict of symbol to id, or the number of ids"
        )

    @classmethod
    def found_in(cls, source: Any) -> Vocabulary | None:
        """As `of`, but None for an object without a vocabulary, such as a feature extractor."""
        tokenizer = getattr(source, "tokenizer", source)
        return cls.of(source) if callable(getattr(tokenizer, "get_vocab", None)) else None


def _whole(value: Any) -> int | None:
    """An int, numpy's too; None for anything else."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def _kind(source: Any) -> str:
    """What was given instead, for the error: the value itself where that says more than its type."""
    empty = isinstance(source, Sized) and len(source) == 0
    return repr(source) if empty or isinstance(source, int | float) else f"of type {type(source).__name__}"


def _from_mapping(source: Mapping[Any, Any], kind: str = "dict") -> Vocabulary:
    pairs = [(value, key) if _whole(key) is None else (key, value) for key, value in source.items()]
    if not all(isinstance(symbol, str) and (_whole(i) or 0) >= 0 and _whole(i) is not None for i, symbol in pairs):
        raise SettingsError(
            "vocabulary= as a dict must map symbols to class indices (str to int ≥ 0), or class indices to symbols"
        )
    symbols = {int(i): symbol for i, symbol in sorted(pairs)}
    declared = [i for i, symbol in symbols.items() if len(symbol) > 1 and symbol.lower() in BLANK_NAMES]
    return Vocabulary(
        symbols=symbols,
        size=max(symbols) + 1,
        blank=declared[0] if len(declared) == 1 else None,
        unknown=next((i for i, symbol in symbols.items() if symbol.lower() in UNKNOWN_NAMES), None),
        special=_special_by_name(symbols),
        kind=kind,
    )


def _special_by_name(symbols: Mapping[int, str]) -> frozenset[int]:
    """Ids that look special; a single character may be said, so it is none."""
    return frozenset(i for i, symbol in symbols.items() if len(symbol) > 1 and symbol.lower() in SPECIAL_NAMES)


def _from_tokenizer(tokenizer: Any) -> Vocabulary:
    symbols = {int(i): str(symbol) for symbol, i in tokenizer.get_vocab().items()}
    ids = {name: getattr(tokenizer, f"{name}_token_id", None) for name in ("pad", "unk", "bos", "eos")}
    special = frozenset(getattr(tokenizer, "all_special_ids", ())) | _special_by_name(symbols)
    # Two words, for transformers 5 counts the word delimiter among the special tokens; bos and eos show here too.
    emitted = {ids["unk"], *_encode(tokenizer, "a a")}
    return Vocabulary(
        symbols=dict(sorted(symbols.items())),
        size=max(symbols, default=-1) + 1,
        blank=ids["pad"],
        unknown=ids["unk"],
        bos=ids["bos"],
        eos=ids["eos"],
        special=special - emitted,
        _decode=_decoder(tokenizer, symbols),
        _encode=partial(_encode, tokenizer),
    )


def _encode(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text; a tokenizer that is no callable, or refuses the text, adds nothing."""
    try:
        return list(tokenizer(text)["input_ids"])
    except Exception:  # noqa: BLE001 - any tokenizer, with any backend: what it cannot say is not known
        return []


def _decoder(tokenizer: Any, symbols: Mapping[int, str]) -> Callable[[list[int]], str]:
    delimiter = getattr(tokenizer, "word_delimiter_token", None)

    def decode(labels: list[int]) -> str:
        words = [symbols.get(label, "\N{REPLACEMENT CHARACTER}") for label in labels]
        return "".join(" " if word == delimiter else word for word in words).replace("\N{LOWER ONE EIGHTH BLOCK}", " ")

    return decode
