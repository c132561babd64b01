"""Measured calls of a JAX step that are not judged yet, in the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from ctcguard_integrations.jax_measured import Measured

LONGEST = 32
"""Calls kept back while the device is behind; then the oldest is waited for."""


@dataclass(slots=True)
class Entry:
    """One measured call.

    Attributes
    ----------
    step : int
        The step that it belongs to.
    route : str
        How it came: ``auxiliary``, ``callback`` or ``direct``.
    measured : Measured
        Perhaps still being computed.
    ids : tuple of str
        Names of the utterances, or empty.
    device : int
        Which of those that run a call side by side, each with its part of the batch; 0 where there is one.
    """

    step: int
    route: str
    measured: Measured
    ids: tuple[str, ...] = ()
    device: int = 0

    def repeats(self, other: Entry) -> bool:
        """Whether this is the same run of the same call: jax.checkpoint computes it twice."""
        same = self.step == other.step and self.route == other.route and self.device == other.device
        return (
            same
            and self.measured.site == other.measured.site
            and np.array_equal(self.measured.packed, other.measured.packed, equal_nan=True)
        )

    def held_bytes(self) -> int:
        """Size of the scores that are kept for a record."""
        scores = self.measured.scores
        return 0 if scores is None else int(scores.nbytes)

    def let_go(self) -> None:
        """Keep the scores no longer."""
        self.measured = replace(self.measured, scores=None)

    def sound(self) -> bool:
        """Whether the device found nothing conspicuous, on any of its parts; this waits for it."""
        packed = np.asarray(self.measured.packed)
        # Of one device it is one number; `any` of numpy takes longer than all else that is done before a step returns.
        return not (packed.item(-1) if packed.ndim == 1 else packed[..., -1].any())

    def ready(self) -> bool:
        """Whether reading it waits for nothing."""
        return not isinstance(self.measured.packed, jax.Array) or self.measured.packed.is_ready()  # type: ignore[attr-defined]


class Queue:
    """Entries first in, first out; and which steps are still being computed, for callbacks do not say theirs.

    Parameters
    ----------
    room_bytes : int
        For the scores of all entries together; the oldest lose theirs first.
    """

    def __init__(self, room_bytes: int = 0) -> None:
        self._room_bytes = room_bytes
        self._entries: deque[Entry] = deque()
        self._flights: deque[tuple[int, Any]] = deque(maxlen=LONGEST)

    def add(self, entry: Entry) -> None:
        """Keep one until it is judged."""
        self._entries.append(entry)
        held_bytes = 0
        for kept in reversed(list(self._entries)):
            held_bytes += kept.held_bytes()
            if held_bytes > self._room_bytes:
                kept.let_go()

    def add_once(self, entry: Entry) -> None:
        """Keep one unless the same run is waiting already."""
        if not any(entry.repeats(other) for other in list(self._entries)):
            self.add(entry)

    def started(self, step: int, outputs: Any) -> None:
        """A step is being computed; its smallest output tells when it is done."""
        arrays = [array for array in jax.tree.leaves(outputs) if isinstance(array, jax.Array)]
        self._flights.append((step, min(arrays, key=lambda array: array.size, default=None)))

    def running(self, otherwise: int) -> int:
        """The oldest step that is not done yet."""
        return next((step for step, output in list(self._flights) if not _done(output)), otherwise)

    def sound(self) -> bool:
        """Whether nothing was conspicuous in any of them; this waits for the device."""
        return all(map(Entry.sound, self._entries))

    def due(self, wait: bool) -> Iterator[Entry]:
        """Take out what can be read without waiting; with ``wait``, everything."""
        while self._entries and (wait or len(self._entries) > LONGEST or self._entries[0].ready()):
            yield self._entries.popleft()


def _done(output: Any) -> bool:
    """Whether the step that made this output is done; a donated output means that a later step has it."""
    return output is None or output.is_deleted() or output.is_ready()
