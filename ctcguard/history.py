"""What a guard remembers of the training calls of a run, for rules about how training goes."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import numpy as np

from ctcguard._array import HostArray
from ctcguard.baselines import LARGEST, Baselines
from ctcguard.readings import Readings

CALLS: Final = 1024
"""Training calls remembered."""
LENGTH_CALLS: Final = 32
"""Training calls whose lengths CTC304 looks at."""
EVERY: Final = 16
"""Of so many training calls, one is followed by a look at the whole history."""
LEAST_NATS: Final = 0.1
"""Of an utterance for which a constant output would lose less than that, no share of it is taken."""
COLUMNS: Final = (
    "step", "frames", "input_length_max", "loss_nats", "loss_nats_per_frame", "uniform_ratio",
    "blank_fraction", "top_class", "top_fraction", "labels",
    "input_length_mean", "constant_ratio",
    "unknown_fraction", "fingerprint", "label_room", "tail_label", "tail_run_spread",
)  # fmt: skip


class History:
    """Rows of numbers, one a training call, the latest last.

    A number that was not measured at a call is NaN. ``step`` counts optimizer steps; ``frames`` is the padded width and
    ``input_length_max`` the longest input length; ``loss_nats`` the median over utterances, ``loss_nats_per_frame``
    that of the losses divided by their input lengths; ``uniform_ratio`` the median of the losses as a share of those of
    a uniform output, and ``constant_ratio``, of utterances with labels, as a share of those of the best output that is
    the same in every frame (`ctcguard.baselines`); ``blank_fraction``, ``top_class`` and ``top_fraction`` as in
    `ctcguard.probes.log_probs.greedy`; ``labels`` and ``input_length_mean`` the mean numbers of labels and of valid
    frames; ``unknown_fraction`` the share of the labels that are unknown; ``fingerprint`` that of the one transcript
    that all utterances of the call have; ``label_room`` the padded width of the targets; ``tail_label`` the label that
    all targets end in when all of them are as long as that, and ``tail_run_spread`` by how many the runs of it differ.
    """

    def __init__(self) -> None:
        self._table = np.full((CALLS, len(COLUMNS)), np.nan)
        self._lengths: deque[tuple[int, int]] = deque(maxlen=LENGTH_CALLS)
        self._calls = 0
        self._label_max = 0
        self._baselines = Baselines()

    def add_lengths(self, readings: Readings) -> tuple[tuple[int, int], ...]:
        """Remember the padded width and the longest input length of a call; those of the last 32, this one included."""
        longest = int(np.max(readings.column("input_lengths"), initial=0))
        self._lengths.append((readings["frames"], longest))
        return tuple(self._lengths)

    def add(self, step: int, readings: Readings) -> bool:
        """Remember a training call, measured as far as it will be; whether it is time to look at the whole."""
        self._table[self._calls % CALLS] = (step, readings["frames"], *self._measured(readings))
        self._calls += 1
        return self._calls % EVERY == 0

    def columns(self) -> dict[str, HostArray]:
        """By name, one number for each remembered call, (calls,)."""
        return dict(zip(COLUMNS, self._rows().T, strict=True))

    def _rows(self) -> HostArray:
        """The calls remembered, the latest last, (calls, columns)."""
        rows: HostArray = np.roll(self._table, -(self._calls % CALLS), axis=0)
        return rows[max(0, CALLS - self._calls) :]

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain lists, for a checkpoint."""
        return {
            "calls": self._calls,
            "label_max": self._label_max,
            "rows": self._rows().tolist(),
            "lengths": list(map(list, self._lengths)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._calls, self._label_max = int(state["calls"]), int(state["label_max"])
        rows = np.asarray(state["rows"], dtype=float).reshape(-1, len(COLUMNS))
        self._table[(self._calls - len(rows) + np.arange(len(rows))) % CALLS] = rows
        self._lengths = deque(
            ((int(frames), int(longest)) for frames, longest in state["lengths"]), maxlen=LENGTH_CALLS
        )

    def _measured(self, readings: Readings) -> tuple[float, ...]:
        nothing = float("nan")
        frames, labels = readings.get("input_lengths"), readings.get("target_lengths")
        losses = readings.get("losses")
        longest = nothing if frames is None else float(np.max(frames, initial=0))
        median = per_frame = uniform = constant = nothing
        if losses is not None and frames is not None and len(losses):
            median, per_frame = _median(losses), _median(losses / np.maximum(frames, 1))
            uniform, constant = self._against_baselines(readings)
        greedy = (float(readings.get(name, nothing)) for name in ("blank_fraction", "top_class", "top_fraction"))
        counts = (nothing if x is None or not len(x) else float(x.sum()) / len(x) for x in (labels, frames))
        return longest, median, per_frame, uniform, *greedy, *counts, constant, *_of_transcripts(readings)

    def _against_baselines(self, readings: Readings) -> tuple[float, float]:
        """The median losses as a share of those of a uniform output and of a constant one."""
        nothing = float("nan")
        if "adjacent_repeats" not in readings:
            return nothing, nothing
        names = ("input_lengths", "target_lengths", "adjacent_repeats")
        table = np.asarray([readings.column(name) for name in names]).clip(0, LARGEST).astype(int)
        possible = table[0] >= table[1] + table[2]
        if not possible.all():
            table = table[:, possible]
        losses = readings.column("losses")[possible]
        uniform, constant = self._baselines.losses(table, readings["classes"], self._symbols(readings))
        judged = (table[1] > 0) & (constant > LEAST_NATS)
        return _median(losses / np.maximum(uniform, LEAST_NATS)), _median(losses[judged] / constant[judged])

    def _symbols(self, readings: Readings) -> int:
        """How many labels there are beside the blank, as far as the run has shown."""
        self._label_max = max(self._label_max, min(int(readings.get("label_max", 0)), readings["classes"] - 1))
        return max(1, self._label_max + int(readings.get("blank", 0) > self._label_max))


def _median(values: HostArray) -> float:
    """As np.median, in a tenth of its time for a few values; NaN for none and for NaN."""
    if not len(values):
        return float("nan")
    ordered = np.sort(values)  # NaN last
    middle = 0.5 * (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2])
    return float(middle) if ordered[-1] == ordered[-1] else float("nan")


def _of_transcripts(readings: Readings) -> tuple[float, ...]:
    """The last five columns."""
    nothing = float("nan")
    unknown = fingerprint = tail_label = spread = nothing
    room = float(readings.get("transcript_room", nothing))
    lengths = readings.get("target_lengths")
    if lengths is None or not len(lengths):
        return unknown, fingerprint, room, tail_label, spread
    if "unknown_labels" in readings and lengths.sum() > 0:
        unknown = float(readings.column("unknown_labels").sum() / lengths.sum())
    if "fingerprint" in readings:
        prints, last, runs = (readings.column(name) for name in ("fingerprint", "last_label", "tail_run"))
        fingerprint = float(prints[0]) if (prints == prints[0]).all() else nothing
        common = float(np.sort(last)[len(last) // 2])  # if nearly all are the same, it is that
        if (lengths == room).all() and (last != common).sum() <= (len(last) > 2):
            runs = np.where(last == common, runs, 0)
            tail_label, spread = common, float(runs.max() - runs.min())
    return unknown, fingerprint, room, tail_label, spread
