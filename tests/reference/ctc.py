"""CTC the slow way: float64, loops, no library. What the tests take for the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product


def log_sum(values: Sequence[float]) -> float:
    if any(math.isnan(value) for value in values):
        return math.nan
    peak = max(values)
    if math.isinf(peak):
        return peak
    return peak + math.log(sum(math.exp(value - peak) for value in values))


def loss(log_probs: Sequence[Sequence[float]], labels: Sequence[int], blank: int) -> float:
    """-ln of the sum over all alignments, by the forward recursion (Graves et al. 2006, eq. 6 and 7)."""
    states = [blank]
    for label in labels:
        states += [label, blank]
    alpha = [0.0] + [-math.inf] * (len(states) - 1)
    for t, frame in enumerate(log_probs):
        before = alpha if t else [0.0] + [-math.inf] * len(states)
        alpha = []
        for s, state in enumerate(states):
            if t == 0:
                arriving = 0.0 if s < 2 else -math.inf
            else:
                skips = s % 2 == 1 and s >= 2 and state != states[s - 2]
                arriving = log_sum([before[k] for k in (s, s - 1, s - 2)[: 3 if skips else 2] if k >= 0])
            alpha.append(arriving + frame[state])
    return -log_sum(alpha[-2:]) if log_probs else 0.0 if not labels else math.inf


def collapsed(path: Sequence[int], blank: int) -> tuple[int, ...]:
    """What a path of classes reads: repeats merged, blanks removed."""
    merged = [symbol for i, symbol in enumerate(path) if i == 0 or symbol != path[i - 1]]
    return tuple(symbol for symbol in merged if symbol != blank)


def alignments(frames: int, labels: Sequence[int], classes: int, blank: int) -> list[tuple[int, ...]]:
    """Every path that reads the labels, found by trying all."""
    return [path for path in product(range(classes), repeat=frames) if collapsed(path, blank) == tuple(labels)]


def repeats(labels: Sequence[int]) -> int:
    return sum(first == second for first, second in pairwise(labels))
