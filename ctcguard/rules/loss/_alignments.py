"""What alignments allow: which utterances have one, and how low their loss can be."""

from __future__ import annotations

import numpy as np

from ctcguard._array import HostArray
from ctcguard.baselines import ln_factorial
from ctcguard.readings import Readings


def feasible(readings: Readings) -> HostArray:
    """Whether each utterance has an alignment at all: a frame for each label and between equal neighbours, (batch,)."""
    needed = readings.column("target_lengths") + readings.column("adjacent_repeats")
    fits: HostArray = readings.column("input_lengths") >= needed
    return fits


def sound(readings: Readings) -> HostArray:
    """Whether each utterance is feasible, its labels are classes, its lengths in range, its frames finite, (batch,).

    Only of these can it be said what a right loss must be.
    """
    frames, labels = readings.column("input_lengths"), readings.column("target_lengths")
    good: HostArray = feasible(readings) & (labels >= 0) & (frames <= readings.get("frames", np.inf))
    for count in ("out_of_range_labels", "negative_labels", "non_finite_frames"):
        if count in readings:
            good &= readings.column(count) == 0
    return good


def least_loss(readings: Readings, utterances: HostArray) -> HostArray:
    """A bound in nats that no right loss of these (sound) utterances is below: every alignment is the best path.

    There are binom(T + U - r, 2U) alignments of U labels with r adjacent repeats to T frames.
    """
    names = ("input_lengths", "target_lengths", "adjacent_repeats")
    frames, labels, repeats = (readings.column(name)[utterances] for name in names)
    n, k = frames + labels - repeats, 2 * labels
    ln_count = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
    least: HostArray = -readings.column("frame_max_sum")[utterances] - ln_count
    return least
