"""What a guard remembers of the training calls of a run, for rules about how training goes."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np

from ctcguard._array import HostArray
from ctcguard.readings import Readings

CALLS: Final = 1024
"""Training calls remembered."""
LENGTH_CALLS: Final = 32
"""Training calls whose lengths CTC304 looks at."""
EVERY: Final = 16
"""Of so many training calls, one is followed by a look at the whole history."""
COLUMNS: Final = (
    "step", "frames", "input_length_max", "loss_nats", "loss_nats_per_frame", "uniform_gap",
    "blank_fraction", "top_class", "top_fraction", "labels",
)  # fmt: skip


class History:
    """Rows of numbers, one a training call, the latest last.

    A number that was not measured at a call is NaN. ``step`` counts optimizer steps; ``frames`` is the padded width and
    ``input_length_max`` the longest input length; ``loss_nats`` the median over utterances, ``loss_nats_per_frame``
    that of the losses divided by their input lengths; ``uniform_gap`` the median distance of the losses from those of a
    uniform output, as a share of these; ``blank_fraction``, ``top_class`` and ``top_fraction`` as in
    `ctcguard.probes.log_probs.greedy`; ``labels`` the mean number of labels.
    """

    def __init__(self) -> None:
        self._rows: deque[tuple[float, ...]] = deque(maxlen=CALLS)
        self._lengths: deque[tuple[int, int]] = deque(maxlen=LENGTH_CALLS)
        self._calls = 0
        self._log_factorial = np.zeros(1)

    def add_lengths(self, readings: Readings) -> tuple[tuple[int, int], ...]:
        """Remember the padded width and the longest input length of a call; those of the last 32, this one included."""
        longest = int(np.max(readings.column("input_lengths"), initial=0))
        self._lengths.append((readings["frames"], longest))
        return tuple(self._lengths)

    def add(self, step: int, readings: Readings) -> bool:
        """Remember a training call, measured as far as it will be; whether it is time to look at the whole."""
        self._calls += 1
        self._rows.append((float(step), float(readings["frames"]), *self._measured(readings)))
        return self._calls % EVERY == 0

    def columns(self) -> dict[str, HostArray]:
        """By name, one number for each remembered call, (calls,)."""
        table = np.asarray(self._rows).reshape(-1, len(COLUMNS))
        return dict(zip(COLUMNS, table.T, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain lists, for a checkpoint."""
        return {"calls": self._calls, "rows": list(map(list, self._rows)), "lengths": list(map(list, self._lengths))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._calls = int(state["calls"])
        self._rows = deque((tuple(map(float, row)) for row in state["rows"]), maxlen=CALLS)
        self._lengths = deque(
            ((int(frames), int(longest)) for frames, longest in state["lengths"]), maxlen=LENGTH_CALLS
        )

    def _measured(self, readings: Readings) -> tuple[float, ...]:
        nothing = float("nan")
        frames, labels = readings.get("input_lengths"), readings.get("target_lengths")
        losses = readings.get("losses")
        longest = nothing if frames is None else float(np.max(frames, initial=0))
        median = per_frame = gap = nothing
        if losses is not None and frames is not None and len(losses):
            median = float(np.median(losses))
            per_frame = float(np.median(losses / np.maximum(frames, 1)))
            gap = self._gap(readings)
        greedy = (float(readings.get(name, nothing)) for name in ("blank_fraction", "top_class", "top_fraction"))
        count = nothing if labels is None or not len(labels) else float(np.mean(labels))
        return longest, median, per_frame, gap, *greedy, count

    def _gap(self, readings: Readings) -> float:
        """How far the losses are from ``T ln C - ln binom(T + U - r, 2U)``: those of a uniform output."""
        if "adjacent_repeats" not in readings:
            return float("nan")
        names = ("input_lengths", "target_lengths", "adjacent_repeats")
        frames, labels, repeats = (np.clip(readings.column(name), 0, 2**20).astype(int) for name in names)
        chosen, of = 2 * labels, frames + labels - repeats
        possible = of >= chosen
        if not possible.any():
            return float("nan")
        of, chosen = of[possible], chosen[possible]
        table = self._factorials(int(of.max()))
        uniform = frames[possible] * np.log(readings["classes"]) - (table[of] - table[chosen] - table[of - chosen])
        return float(np.median(np.abs(readings.column("losses")[possible] - uniform) / np.maximum(uniform, 1e-9)))

    def _factorials(self, largest: int) -> HostArray:
        """The logarithms of n! for n from 0 on, kept."""
        if largest >= len(self._log_factorial):
            self._log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 2 * largest + 2)))])
        return self._log_factorial
