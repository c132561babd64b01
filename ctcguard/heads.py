"""Which heads the calls of a run had: the vocabulary is held against the one there is, once."""

from __future__ import annotations

Head = tuple[int | None, int | None]
"""Classes and blank."""


class Heads:
    """The heads seen before the first update.

    With calls of several heads (phonemes and characters, say) nobody knows whose the vocabulary is: then it is not
    judged.
    """

    def __init__(self) -> None:
        self._seen: set[Head] | None = set()
        self._judged: Head = None, None

    def saw(self, classes: int, blank: int) -> None:
        """A training call had this head."""
        if self._seen is not None:
            self._seen.add((classes, blank))

    def judged(self, classes: int | None, blank: int | None) -> None:
        """The vocabulary was held against this head."""
        self._judged = classes, blank

    def is_open(self, classes: int, blank: int) -> bool:
        """Whether the vocabulary may still have to be held against this head."""
        return self._seen is not None and (classes, blank) != self._judged

    def settle(self) -> Head | None:
        """The only head of the calls so far, if the vocabulary was not held against it; from now on there is none."""
        seen, self._seen = self._seen, None
        return next(iter(seen)) if seen and len(seen) == 1 and seen != {self._judged} else None
