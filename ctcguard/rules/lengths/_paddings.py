"""Paddings instead of lengths, as optax takes them: 1 where an item is padding, and padding at the end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctcguard._array import HostArray
from ctcguard.finding import Severity
from ctcguard.readings import Readings

INVERT = "pass 1.0 where {item} is padding and 0.0 where it is not: paddings = 1.0 - mask"
ALL_PADDING = "every {item} of the batch is marked as padding: paddings are 1.0 where a mask is 0.0"


class Misplaced(NamedTuple):
    """Rows with padding before an item, and what that is; where paddings are inverted, rows of padding only, too."""

    slug: str
    evidence: str
    fix: str
    rows: HostArray
    severity: Severity


def misplaced_frames(readings: Readings) -> Misplaced | None:
    """Frames after padding. optax skips padded frames wherever they stand: only inverted ones are certainly wrong."""
    rows = _rows(readings, "frames")
    if rows.size == 0:
        return None
    lengths = readings.column("input_lengths")
    backwards = bool((readings.column("starts_padded_frames")[rows] > 0).all())
    seen = f"{rows.size} of {lengths.size} utterances begin with padding"
    right = "pad utterances at the end: what is checked here counts frames from the first on"
    if not backwards:
        evidence = f"frames of {rows.size} of {lengths.size} utterances follow after padding"
        return Misplaced("not-right-padded", evidence, right, rows, Severity.WARNING)
    if (lengths >= readings["frames"]).any():
        evidence = f"{seen}, the longest has none: padded on the left, which this loss allows"
        return Misplaced("not-right-padded", evidence, right, rows, Severity.INFORMATION)
    invert = INVERT.format(item="a frame")
    empty = np.flatnonzero(lengths == 0)
    if empty.size:
        evidence = f"{seen}, and the longest would be padding only"
        return Misplaced("inverted-paddings", evidence, invert, np.concatenate([rows, empty]), Severity.ERROR)
    return Misplaced(
        "inverted-paddings", f"{seen}; if you pad on the left, ignore this", invert, rows, Severity.WARNING
    )


def misplaced_labels(readings: Readings) -> Misplaced | None:
    """Labels after padding, or nothing but padding that looks like labels: the loss reads the wrong ones."""
    rows = _rows(readings, "labels")
    lengths, invert = readings.column("target_lengths"), INVERT.format(item="a label")
    if rows.size == 0:
        if "padded_label_span" not in readings:
            return None
        hidden = np.flatnonzero(readings.column("padded_label_span") > 0)
        if hidden.size == 0 or not (lengths == 0).all():
            return None
        evidence = f"no label is left, but what is marked as padding differs in {hidden.size} utterances"
        return Misplaced("all-padding", evidence, invert, hidden, Severity.ERROR)
    if (readings.column("starts_padded_labels")[rows] > 0).all():
        evidence = f"{rows.size} of {lengths.size} utterances begin with padding"
        return Misplaced("inverted-paddings", evidence, invert, rows, Severity.ERROR)
    evidence = f"labels of {rows.size} of {lengths.size} utterances follow after padding"
    fix = "move the labels of each utterance to the front, with padding behind them: the loss reads the first ones"
    return Misplaced("not-right-padded", evidence, fix, rows, Severity.ERROR)


def _rows(readings: Readings, items: str) -> HostArray:
    """The worst first."""
    name = f"padded_first_{items}"
    if name not in readings:
        return np.zeros(0, dtype=int)
    counts = readings.column(name)
    return np.argsort(-counts, kind="stable")[: int(np.sum(~(counts == 0)))]
