"""Calls in which no rule about labels, lengths and losses can find fault: told by a dozen comparisons.

The rules say what is wrong; this says only that nothing is. In any doubt it says nothing, and the rules are asked.
A few numbers each: Python's own minimum and maximum take a fraction of the time of numpy's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import Any, Final, NamedTuple

import numpy as np

from ctcguard._array import HostArray, arange

WHOLE: Final = "iu"
"""Kinds of dtype in which labels and lengths are whole numbers."""
NONE_WANTED: Final = ("removed_labels", "padded_first_frames", "padded_first_labels", "padded_label_span")
"""Readings of which each number above 0 is worth a look."""
HALF_FRAMES: Final = 1.5
"""An utterance that is longer than half the time axis by so much shows that lengths count frames (CTC304)."""


class Given(NamedTuple):
    """What a loss on the host was given, but for the scores.

    Attributes
    ----------
    shape : tuple of int
        That of the scores: batch, frames, classes.
    targets, input_lengths, target_lengths, blank, given_labels
        As in `ctcguard.call.CTCCall`.
    """

    shape: tuple[int, int, int]
    targets: HostArray
    input_lengths: HostArray
    target_lengths: HostArray
    blank: int
    given_labels: HostArray | None = None


def glimpse(given: Given) -> dict[str, Any] | None:
    """What a guard remembers of a call that is sound before its loss is computed; None in any doubt.

    Returns
    -------
    dict or None
        As the probes of `ctcguard.probes.CONTRACT` measure them: of each utterance ``input_lengths`` and
        ``target_lengths``, lists, and ``adjacent_repeats``, a list or what makes one of them; ``label_max``. And
        ``batch``, ``frames``, ``classes``, ``blank``, ``label_room`` and ``concatenated``.
    """
    shape, targets, frames, counts, blank, labels_given = given
    rank = targets.ndim
    right = rank in (1, 2) and counts.shape == frames.shape == (shape[0],) and (rank == 1 or len(targets) == shape[0])
    if not (right and targets.dtype.kind in WHOLE and frames.dtype.kind in WHOLE and counts.dtype.kind in WHOLE):
        return None
    room = targets.shape[-1]
    row = targets if rank == 1 else targets[arange(targets, room) < counts[:, None]]
    labels = counts.tolist()
    if not row.size or row.size != sum(labels):
        return None
    least, most = int(row.min()), int(row.max())
    if least <= blank <= most and (row == blank).any():
        return None
    if labels_given is not None and (labels_given == blank).any():
        return None
    at_most = int(np.count_nonzero(row[1:] == row[:-1]))
    found: dict[str, Any] = {
        "input_lengths": frames.tolist(),
        "target_lengths": labels,
        "adjacent_repeats": [at_most] * len(labels),
        "label_max": most,
        "label_min": least,
        "blank_count": 0,
        "batch": shape[0],
        "frames": shape[1],
        "classes": shape[2],
        "blank": blank,
        "label_room": room,
        "concatenated": rank == 1,
    }
    count = partial(_repeats, row.copy() if rank == 1 else row, labels)
    if min(map(_margin, found["input_lengths"], labels)) < at_most:
        found["adjacent_repeats"] = count()
    if not sound(found):
        return None
    found["adjacent_repeats"] = count
    return found


def _margin(frames: int, labels: int) -> int:
    return frames - labels


def _repeats(row: HostArray, labels: Sequence[int]) -> list[int]:
    """How many labels of each utterance equal the one before them; all labels in one row."""
    ends = np.cumsum(labels)
    before = np.concatenate([[0], np.cumsum(row[1:] == row[:-1])])  # repeats up to each label
    first, last = np.minimum(ends - labels, row.size - 1), np.maximum(ends - 1, 0)
    counted: list[int] = np.where(np.asarray(labels) > 0, before[last] - before[first], 0).tolist()
    return counted


def sound(found: Mapping[str, Any]) -> bool:
    """Whether no rule can find fault with the labels and lengths of a call.

    Parameters
    ----------
    found : mapping
        Readings of the contract and facts: ``input_lengths``, ``target_lengths`` and ``adjacent_repeats`` of each
        utterance, as lists; ``label_min``, ``label_max``, ``blank_count``, ``frames``, ``classes``, ``blank``,
        ``label_room``, ``concatenated``.
    """
    frames, labels = found["input_lengths"], found["target_lengths"]
    width, classes, room = found["frames"], found["classes"], found["label_room"]
    longest = max(frames, default=0)
    return (
        0 <= found["blank"] < classes
        and 0 <= found["label_min"] <= found["label_max"] < classes
        and found["blank_count"] == 0
        and min(frames, default=0) >= 1
        and longest <= width
        and (longest == width or 2 * longest > width + 2 * HALF_FRAMES)
        and min(labels) >= 0
        and (sum(labels) == room if found["concatenated"] else max(labels) <= room)
        and all(map(_fits, frames, labels, found["adjacent_repeats"]))
        and not any(name in found and any(found[name]) for name in NONE_WANTED)
    )


def _fits(frames: float, labels: float, repeats: float) -> bool:
    """Whether an utterance has an alignment; not if a number is none."""
    return frames >= labels + repeats


def sound_losses(losses: Sequence[float]) -> bool:
    """Whether all losses are finite and above 0; a loss of exactly 0 is worth a look."""
    return len(losses) > 0 and all(0 < loss < inf for loss in losses)
