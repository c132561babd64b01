"""Paddings instead of lengths, as optax takes them: 1 where an item is padding, and padding at the end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctcguard._array import HostArray
from ctcguard.finding import Severity
from ctcguard.readings import Readings

INVERT = "pass 1.0 where {item} is padding and 0.0 where it is not: paddings = 1.0 - mask"
ALL_PADDING = "every {item} of the batch is marked as padding: paddings are 1.0 where a mask is 0.0"

LESS, MUCH_LESS = 2, 10
"""So many times less padding changes from frame to frame than speech: at the first call; later, when a model that says
blank everywhere changes little too, it takes more to call frames padding that are said to be none."""


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
    padding, others = readings.get("leading_change", np.nan), readings.get("trailing_change", np.nan)
    changes = f"from frame to frame the scores change by {padding:.2g} in the padding and by {others:.2g} behind it"
    if others > LESS * padding:
        evidence = f"{seen}; {changes}: padded on the left, which this loss allows"
        return Misplaced("not-right-padded", evidence, right, rows, Severity.INFORMATION)
    first = len(readings.get("length_history", ())) <= 1
    against = changes if padding > (LESS if first else MUCH_LESS) * others else _odd(readings, first)
    if against is None:
        evidence = f"{seen}, and nothing speaks for a mask in place of the paddings: padded on the left, perhaps"
        return Misplaced("not-right-padded", evidence, right, rows, Severity.INFORMATION)
    evidence = f"{seen}; {against}; if you pad on the left, ignore this"
    return Misplaced("inverted-paddings", evidence, invert, rows, Severity.WARNING)


def _odd(readings: Readings, first: bool) -> str | None:
    """What is odd about the frames that are left, if they are those of utterances padded on the left."""
    lengths, frames = readings.column("input_lengths"), readings["frames"]
    short = int(np.sum(lengths < readings.column("target_lengths"))) if "target_lengths" in readings else 0
    if short:
        return f"the labels of {short} do not fit into the frames that are left"
    longest = float(lengths.max())
    if first and longest <= frames / 2:
        return f"no more than {longest:.0f} of {frames:.0f} frames are left of any"
    return None


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
