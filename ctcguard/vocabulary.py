"""What a tokenizer, processor, list, dict or number says about the classes of a CTC head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctcguard.errors import SettingsError

BLANK_NAMES = frozenset({"<pad>", "[pad]", "<blank>", "<blk>", "<b>", "[blank]", "<ctc>", "<eps>", "ε", "ϵ", "", "_", "-", "~", "∅", "·"})
"""Spellings that mean a CTC blank when they are a symbol of their own (compared in lower case)."""


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

    def emittable(self) -> tuple[int, ...]:
        """Ids that a transcript can turn into, in ascending order."""
        ids = self.symbols if self.symbols else range(self.size)
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
        if isinstance(source, int) and not isinstance(source, bool) and source > 0:
            return cls({}, source, kind="number")
        if isinstance(source, Mapping) and source:
            return _from_mapping(source)
        if isinstance(source, Sequence) and not isinstance(source, str | bytes) and source:
            return _from_mapping({str(symbol): i for i, symbol in enumerate(source)}, kind="list")
        tokenizer = getattr(source, "tokenizer", source)
        if callable(getattr(tokenizer, "get_vocab", None)):
            return _from_tokenizer(tokenizer)
        raise SettingsError(
            f"vocabulary={type(source).__name__} is of an unknown kind: give a tokenizer or processor with get_vocab(), "
            "a list of symbols in class order, a dict of symbol to id, or the number of ids"
        )

    @classmethod
    def found_in(cls, source: Any) -> Vocabulary | None:
        """As `of`, but None for an object without a vocabulary, such as a feature extractor."""
        tokenizer = getattr(source, "tokenizer", source)
        return cls.of(source) if callable(getattr(tokenizer, "get_vocab", None)) else None


def _from_mapping(source: Mapping[Any, Any], kind: str = "dict") -> Vocabulary:
    pairs = [(key, value) if isinstance(key, int) else (value, key) for key, value in source.items()]
    if not all(isinstance(i, int) and i >= 0 and isinstance(symbol, str) for i, symbol in pairs):
        raise SettingsError("a vocabulary dict must map symbols to class indices (str to int ≥ 0), or indices to symbols")
    symbols = dict(sorted(pairs))
    declared = [i for i, symbol in symbols.items() if len(symbol) > 1 and symbol.lower() in BLANK_NAMES]
    blank = declared[0] if len(declared) == 1 else None
    return Vocabulary(symbols, max(symbols) + 1, blank, special=frozenset(declared), kind=kind)


def _from_tokenizer(tokenizer: Any) -> Vocabulary:
    symbols = {int(i): str(symbol) for symbol, i in tokenizer.get_vocab().items()}
    ids = {name: getattr(tokenizer, f"{name}_token_id", None) for name in ("pad", "unk", "bos", "eos")}
    always = set(_encode(tokenizer, ""))
    special = set(getattr(tokenizer, "all_special_ids", ())) - {ids["unk"]} - always
    return Vocabulary(
        symbols=dict(sorted(symbols.items())),
        size=max(symbols, default=-1) + 1,
        blank=ids["pad"],
        unknown=ids["unk"],
        bos=ids["bos"],
        eos=ids["eos"],
        special=frozenset(special),
        _decode=_decoder(tokenizer, symbols),
    )


def _encode(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text; a tokenizer that is no callable, or refuses the text, adds nothing."""
    try:
        return list(tokenizer(text)["input_ids"])
    except (TypeError, ValueError, KeyError, IndexError):
        return []


def _decoder(tokenizer: Any, symbols: Mapping[int, str]) -> Callable[[list[int]], str]:
    delimiter = getattr(tokenizer, "word_delimiter_token", None)

    def decode(labels: list[int]) -> str:
        words = [symbols.get(label, "\N{REPLACEMENT CHARACTER}") for label in labels]
        return "".join(" " if word == delimiter else word for word in words).replace("\N{LOWER ONE EIGHTH BLOCK}", " ")

    return decode
