"""What the probes must return, by float64 loops over one utterance after the other. Nothing is sampled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.reference.ctc import log_sum, repeats


def readings(
    scores: np.ndarray, labels: Sequence[Sequence[int]], input_lengths: Sequence[int], blank: int
) -> dict[str, Any]:
    """All readings of a call that expects log-probs; ``labels`` holds those within target_lengths."""
    scores = np.asarray(scores, dtype=np.float64)
    batch, frames, classes = scores.shape
    valid = [scores[b][: max(0, int(length))] for b, length in enumerate(input_lengths)]
    beyond = [scores[b][max(0, int(length)) :] for b, length in enumerate(input_lengths)]
    return {
        "input_lengths": list(input_lengths),
        "target_lengths": [len(row) for row in labels],
        "out_of_range_labels": [sum(label >= classes for label in row) for row in labels],
        "negative_labels": [sum(label < 0 for label in row) for row in labels],
        "blank_labels": [sum(label == blank for label in row) for row in labels],
        "blanks_before_label": [sum(a == blank != b for a, b in itertools.pairwise(row)) for row in labels],
        "adjacent_repeats": [repeats(row) for row in labels],
        "blank_count": sum(label == blank for row in labels for label in row),
        "label_max": max([-1, *(label for row in labels for label in row)]),
        "label_min": min([0, *(label for row in labels for label in row)]),
        "score_max": [highest([x for frame in rows for x in frame]) for rows in valid],
        "frame_max_sum": [sum(highest(frame) for frame in rows) for rows in valid],
        "non_finite_frames": [sum(not math.isfinite(highest(frame)) for frame in rows) for rows in valid],
        "non_finite_padding_frames": [sum(not math.isfinite(highest(frame)) for frame in rows) for rows in beyond],
        **normalisation([frame for rows in valid for frame in rows], classes, padded=any(len(rows) for rows in beyond)),
        **greedy([frame for rows in valid for frame in rows], classes, blank),
        "logsumexp_time_abs_max": worst([log_sum(list(scores[b, :, c])) for b in range(batch) for c in range(classes)]),
        "logsumexp_batch_abs_max": worst(
            [log_sum(list(scores[:, t, c])) for t in range(frames) for c in range(classes)]
        ),
        "tail_frames": [tail([tuple(frame) for frame in rows]) for rows in valid],
        "leading_change": change([scores[b][: frames - int(n)] for b, n in enumerate(input_lengths)]),
        "trailing_change": change([scores[b][frames - int(n) :] for b, n in enumerate(input_lengths)]),
        "alignment_cost": [
            cost(rows, row, blank, classes, int(length))
            for rows, row, length in zip(valid, labels, input_lengths, strict=True)
        ],
    }


def normalisation(frames: Sequence[Sequence[float]], classes: int, *, padded: bool) -> dict[str, float]:
    sums = [log_sum(list(frame)) for frame in frames] + ([0.0] if padded else [])
    values = [float(x) for frame in frames for x in frame]
    finite = [x for x in values if math.isfinite(x)]
    return {
        "logsumexp_min": lowest(sums),
        "logsumexp_max": highest(sums),
        "row_sum_error": highest([abs(sum(frame) - 1) for frame in frames] or [0.0]),
        "sample_min": lowest(values or [math.inf]),
        "sample_max": highest(values or [-math.inf]),
        "minus_inf_fraction": values.count(-math.inf) / max(1, len(frames) * classes),
        "fits_bfloat16": float(all(fits(x, 8) for x in finite)),
        "fits_float16": float(all(fits(x, 11) for x in finite)),
    }


def greedy(frames: Sequence[Sequence[float]], classes: int, blank: int) -> dict[str, float]:
    wins = [0.0] * classes
    for frame in frames:
        best = [c for c in range(classes) if float(frame[c]) == highest(list(map(float, frame)))]
        for c in best:
            wins[c] += 1 / len(best) / len(frames)
    top = wins.index(max(wins))
    return {"blank_fraction": wins[blank], "top_class": top, "top_fraction": wins[top]}


def tail(items: Sequence[Any]) -> int:
    """How many items at the end are the last one; a NaN equals nothing, not even itself."""
    return sum(1 for _ in itertools.takewhile(lambda item: item == items[-1], reversed(items)))


def change(parts: Sequence[np.ndarray]) -> float:
    """The lower median change of the largest score from one frame to the next."""
    steps = [abs(highest(list(b)) - highest(list(a))) for part in parts for a, b in itertools.pairwise(part)]
    finite = sorted(step for step in steps if math.isfinite(step))
    return finite[(len(finite) - 1) // 2] if finite else math.nan


def fits(value: float, bits: int) -> bool:
    """Whether a number has at most that many significant bits."""
    return (math.frexp(value)[0] * 2**bits) % 1 == 0


def cost(frames: np.ndarray, labels: Sequence[int], blank: int, classes: int, length: int) -> float:
    """Label u on frame 2u, the blank on all others."""
    if length < 2 * len(labels) - 1:
        return math.inf
    path = [labels[t // 2] if t % 2 == 0 and t // 2 < len(labels) else blank for t in range(len(frames))]
    return -sum(float(frame[min(max(label, 0), classes - 1)]) for frame, label in zip(frames, path, strict=True))


def highest(values: Sequence[float]) -> float:
    return math.nan if any(math.isnan(x) for x in values) else max(values, default=-math.inf)


def lowest(values: Sequence[float]) -> float:
    return math.nan if any(math.isnan(x) for x in values) else min(values)


def worst(sums: Sequence[float]) -> float:
    return highest([abs(x) for x in sums])
