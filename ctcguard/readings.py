"""What the probes measured, on the host, as rules read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ctcguard._array import HostArray
from ctcguard.finding import NAMED_UTTERANCES, Utterance

Describe = Callable[[int], Utterance]
Later = Mapping[str, Callable[[], Mapping[str, Any]]]
NOTHING: Later = {}


def _only_index(index: int) -> Utterance:
    return Utterance(index=index)


class Readings(Mapping[str, Any]):
    """Named numbers of one CTC call: floats, and one column of floats (batch,) for what is known per utterance.

    Parameters
    ----------
    values : mapping
        Name to float, column or static fact (``classes``, ``blank``, ``provenance`` …). A reading that could not be
        had is absent, never NaN: NaN is a measured value.
    describe : callable, optional
        Index in the batch to `Utterance`, asked only when a rule fires.
    later : mapping, optional
        Name to what measures it, and others with it, when a rule asks for it.
    """

    def __init__(self, values: Mapping[str, Any], describe: Describe = _only_index, later: Later = NOTHING) -> None:
        self._values = dict(values)
        self._describe = describe
        self._later = later
        self._extremes: dict[str, tuple[float, float]] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._values and name in self._later:
            self._values |= self._later[name]()
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values.keys() | self._later.keys())

    def __len__(self) -> int:
        return len(self._values.keys() | self._later.keys())

    # Rules ask hundreds of times a call: the mapping's own ways through __getitem__ take four times as long.

    def __contains__(self, name: object) -> bool:
        return name in self._values or name in self._later

    def has(self, names: Iterable[str]) -> bool:
        """Whether all of them are there."""
        return all(map(self.__contains__, names))

    def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """All names, those that are measured later apart: the same for calls of one kind."""
        return tuple(self._values), tuple(self._later)

    def get(self, name: str, default: Any = None) -> Any:
        """The reading, or the default where it could not be had."""
        try:
            return self[name]
        except KeyError:
            return default

    def with_values(self, values: Mapping[str, Any], later: Later = NOTHING) -> Readings:
        """These readings and more of the same call."""
        more = Readings({**self._values, **values}, self._describe, {**self._later, **later})
        more._extremes = {name: found for name, found in self._extremes.items() if name not in values}
        return more

    def settled(self) -> Readings:
        """These readings without those that nobody asked for: what would measure them holds on to the scores."""
        return Readings(self._values, self._describe)

    def utterances(self, indices: Iterable[int], note: Callable[[int], str]) -> tuple[Utterance, ...]:
        """The first five of the utterances, each with its note."""
        named = list(indices)[:NAMED_UTTERANCES]
        return tuple(self._describe(i).model_copy(update={"note": note(i)}) for i in named)

    def column(self, name: str) -> HostArray:
        """A per-utterance column, (batch,)."""
        found: HostArray = self[name]
        return found

    def lowest(self, name: str) -> float:
        """The smallest number of a column; NaN if one is, inf without an utterance."""
        return self._range(name)[0]

    def highest(self, name: str) -> float:
        """The largest number of a column; NaN if one is, -inf without an utterance."""
        return self._range(name)[1]

    def _range(self, name: str) -> tuple[float, float]:
        found = self._extremes.get(name)
        if found is None:
            column = np.asarray(self[name])
            found = (float(column.min()), float(column.max())) if column.size else (float("inf"), float("-inf"))
            self._extremes[name] = found
        return found
