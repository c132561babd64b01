"""What a guard remembers of the training calls of a run, for rules about how training goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from ctcguard._array import HostArray, quiet
from ctcguard.baselines import LARGEST, baselines

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

SCALARS: Final = (
    "frames", "classes", "blank", "label_max", "blank_fraction", "top_class", "top_fraction", "transcript_room",
)  # fmt: skip
PER_UTTERANCE: Final = (
    "input_lengths", "target_lengths", "adjacent_repeats", "losses",
    "unknown_labels", "fingerprint", "last_label", "tail_run",
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
        self._waiting: list[tuple[int, list[float], list[Any]]] = []

    def add_lengths(self, frames: int, longest: float) -> None:
        """Remember the padded width and the longest input length of a call."""
        self._lengths.append((frames, int(max(0.0, longest))))

    @property
    def lengths(self) -> tuple[tuple[int, int], ...]:
        """Those of the last 32 calls."""
        return tuple(self._lengths)

    def add(self, step: int, readings: Mapping[str, Any]) -> bool:
        """Remember a training call, measured as far as it will be; whether it is time to look at the whole.

        A column may also be a function that returns it.
        """
        scalars = [readings.get(name, np.nan) for name in SCALARS]
        self._waiting.append((step, scalars, [readings.get(name) for name in PER_UTTERANCE]))
        self._calls += 1
        due = self._calls % EVERY == 0
        if due:
            self._settle()
        return due

    def columns(self) -> dict[str, HostArray]:
        """By name, one number for each remembered call, (calls,)."""
        self._settle()
        return dict(zip(COLUMNS, self._rows().T, strict=True))

    def _settle(self) -> None:
        """Make rows of the calls that wait: of many at once for little more than of one."""
        if not self._waiting:
            return
        waiting = [(step, scalars, [_made(column) for column in found]) for step, scalars, found in self._waiting]
        self._waiting = []
        latest = Latest(waiting, self._label_max)
        self._label_max = latest.label_max
        with quiet():
            rows = latest.rows()
        self._table[(self._calls - len(rows) + np.arange(len(rows))) % CALLS] = rows

    def _rows(self) -> HostArray:
        """The calls remembered, the latest last, (calls, columns)."""
        rows: HostArray = np.roll(self._table, -(self._calls % CALLS), axis=0)
        return rows[max(0, CALLS - self._calls) :]

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain lists, for a checkpoint."""
        self._settle()
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


class Latest:
    """Some calls in a row, of which rows are to be made: tables (calls, utterances), filled up to the largest batch.

    Parameters
    ----------
    waiting : sequence of (step, scalars, columns)
        In the order of `SCALARS` and `PER_UTTERANCE`; NaN and None for what was not measured.
    label_max : int
        The largest label of the calls before.
    """

    def __init__(self, waiting: Sequence[tuple[int, list[float], list[Any]]], label_max: int) -> None:
        self._steps = np.asarray([step for step, _, _ in waiting], dtype=float)
        self._scalars = dict(zip(SCALARS, np.asarray([found for _, found, _ in waiting], dtype=float).T, strict=True))
        sizes = [max((len(column) for column in found if column is not None), default=0) for _, _, found in waiting]
        table = np.full((len(PER_UTTERANCE), len(waiting), max(1, *sizes)), np.nan)
        for call, (_, _, found) in enumerate(waiting):
            for name, column in enumerate(found):
                if column is not None:
                    table[name, call, : len(column)] = column
        there = np.asarray([[column is not None for column in found] for _, _, found in waiting]).T
        self._there = dict(zip(PER_UTTERANCE, there, strict=True))
        inside = np.arange(table.shape[2]) < np.asarray(sizes)[:, None]
        self._columns = dict(zip(PER_UTTERANCE, table, strict=True))
        self._inside = dict(zip(PER_UTTERANCE, there[:, :, None] & inside, strict=True))
        seen = np.minimum(self._scalars["label_max"], self._scalars["classes"] - 1)
        self._label_max = np.fmax.accumulate(np.concatenate([[label_max], seen]))[1:]

    @property
    def label_max(self) -> int:
        """The largest label that a run has shown so far."""
        return int(self._label_max[-1])

    def rows(self) -> HostArray:
        """One row a call, (calls, columns)."""
        scalars, known = self._scalars, self._inside["input_lengths"]
        frames = self._columns["input_lengths"]
        losses, judged = self._columns["losses"], self._inside["losses"] & known
        found = {
            "step": self._steps,
            "input_length_max": np.where(
                self._there["input_lengths"], np.where(known, frames, 0.0).max(axis=1), np.nan
            ),
            "loss_nats": _medians(losses, judged),
            "loss_nats_per_frame": _medians(losses / np.maximum(frames, 1), judged),
            "labels": self._mean("target_lengths"),
            "input_length_mean": self._mean("input_lengths"),
            "label_room": scalars["transcript_room"],
        }
        found |= {name: scalars[name] for name in ("frames", "blank_fraction", "top_class", "top_fraction")}
        found |= self._against_baselines() | self._of_transcripts()
        return np.stack([found[name] for name in COLUMNS], axis=1)

    def _mean(self, name: str) -> HostArray:
        inside = self._inside[name]
        mean: HostArray = np.where(inside, self._columns[name], 0.0).sum(axis=1) / inside.sum(axis=1)
        return mean

    def _against_baselines(self) -> dict[str, HostArray]:
        """The median losses as a share of those of a uniform output and of a constant one."""
        losses, scalars = self._columns["losses"], self._scalars
        lengths = np.stack([self._columns[n] for n in ("input_lengths", "target_lengths", "adjacent_repeats")])
        lengths = lengths.clip(0, LARGEST)
        possible = self._inside["losses"] & (lengths[0] >= lengths[1] + lengths[2])
        whole = np.where(possible, lengths, 0.0).astype(int)
        symbols = np.maximum(1, self._label_max + (scalars["blank"] > self._label_max))
        uniform, constant = baselines(whole, scalars["classes"][:, None], symbols[:, None])
        judged = possible & (whole[1] > 0) & (constant > LEAST_NATS)
        return {
            "uniform_ratio": _medians(losses / np.maximum(uniform, LEAST_NATS), possible),
            "constant_ratio": _medians(losses / constant, judged),
        }

    def _of_transcripts(self) -> dict[str, HostArray]:
        """What all transcripts of a call have in common."""
        unknown, prints, last, runs = (
            self._columns[name] for name in ("unknown_labels", "fingerprint", "last_label", "tail_run")
        )
        lengths, inside = self._columns["target_lengths"], self._inside["target_lengths"]
        count, total = inside.sum(axis=1), np.where(inside, lengths, 0.0).sum(axis=1)
        alike = ((prints == prints[:, :1]) | ~inside).all(axis=1) & (count > 0)
        common = np.take_along_axis(np.sort(last, axis=1), (count // 2)[:, None].clip(0, last.shape[1] - 1), axis=1)
        full = ((lengths == self._scalars["transcript_room"][:, None]) | ~inside).all(axis=1)
        # if nearly all end in the same label, it is the one in the middle
        ends_alike = full & ((inside & (last != common)).sum(axis=1) <= (count > 2)) & ~np.isnan(common[:, 0])
        of_common = np.where(last == common, runs, 0.0)
        longest = np.where(inside, of_common, -np.inf).max(axis=1)
        spread = longest - np.where(inside, of_common, np.inf).min(axis=1)
        return {
            "unknown_fraction": np.where(total > 0, np.where(inside, unknown, 0.0).sum(axis=1) / total, np.nan),
            "fingerprint": np.where(alike, prints[:, 0], np.nan),
            "tail_label": np.where(ends_alike, common[:, 0], np.nan),
            "tail_run_spread": np.where(ends_alike, spread, np.nan),
        }


def _made(column: Any) -> Any:
    return column() if callable(column) else column


def _medians(values: HostArray, inside: HostArray) -> HostArray:
    """Of each row, as np.median; NaN for none and for NaN."""
    count = inside.sum(axis=1)
    ordered = np.sort(np.where(inside, values, np.inf), axis=1)  # NaN last
    row = np.arange(len(values))
    last = np.maximum(count - 1, 0)
    middle = 0.5 * (ordered[row, last // 2] + ordered[row, np.minimum(count // 2, ordered.shape[1] - 1)])
    bad = (count == 0) | (np.isnan(values) & inside).any(axis=1)
    return np.where(bad, np.nan, middle)
