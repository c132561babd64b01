"""What the probes measured, on the host, as rules read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ctcguard._array import HostArray
from ctcguard.finding import NAMED_UTTERANCES, Utterance

Describe = Callable[[int], Utterance]


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
    """

    def __init__(self, values: Mapping[str, Any], describe: Describe = _only_index) -> None:
        self._values = dict(values)
        self._describe = describe

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    # Rules ask hundreds of times a call: the mapping's own ways through __getitem__ take four times as long.

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def get(self, name: str, default: Any = None) -> Any:
        """The reading, or the default where it could not be had."""
        return self._values.get(name, default)

    def with_values(self, values: Mapping[str, Any]) -> Readings:
        """These readings and more of the same call."""
        return Readings({**self._values, **values}, self._describe)

    def utterances(self, indices: Iterable[int], note: Callable[[int], str]) -> tuple[Utterance, ...]:
        """The first five of the utterances, each with its note."""
        named = list(indices)[:NAMED_UTTERANCES]
        return tuple(self._describe(i).model_copy(update={"note": note(i)}) for i in named)

    def column(self, name: str) -> HostArray:
        """A per-utterance column, (batch,)."""
        found: HostArray = self._values[name]
        return found
