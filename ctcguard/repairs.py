"""What the loss of a recorded utterance would be with the mistake put right, where that can be computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ctcguard._array import HostArray, quiet
from ctcguard.finding import Finding
from ctcguard.reference import loss


@dataclass(frozen=True, eq=False)
class Given:
    """What one utterance was given.

    Attributes
    ----------
    log_probs : array, (time, classes)
        float64, padded frames too: log-probs as they were given, logits after log_softmax.
    scores : array, (time, classes)
        float64, as they were given.
    labels : array of int, (labels,)
        Within its target length.
    frames : int
        Its input length.
    blank : int
        Index of the blank class.
    """

    log_probs: HostArray
    scores: HostArray
    labels: HostArray
    frames: int
    blank: int

    def obstacle(self) -> str:
        """Why no loss can be computed; empty when it can."""
        frames, classes = self.log_probs.shape
        wanted = [self.blank, *self.labels.tolist()]
        strange = [label for label in wanted if not 0 <= label < classes]
        if strange:
            return f"{strange[0]} is no class (0 … {classes - 1})"
        if not 1 <= self.frames <= frames:
            return f"input length {self.frames} is not in 1 … {frames}"
        return ""

    def loss(self) -> float | None:
        """The loss in float64, nats; None where labels or lengths are out of range."""
        return None if self.obstacle() else loss(self.log_probs[: self.frames], self.labels, self.blank)


class Repair(NamedTuple):
    """One mistake put right.

    Attributes
    ----------
    words : str
        What was changed, as in "after log_softmax the loss is …".
    nats : float
        The loss then.
    """

    words: str
    nats: float


Change = Callable[[Given], Given]


def repairs(findings: Iterable[Finding], given: Given) -> Iterator[Repair]:
    """What each fix would change, for those findings whose fix can be computed from the call alone."""
    for words, right in repaired(findings, given):
        with quiet():
            nats = right.loss()
        if nats is not None:
            yield Repair(words, nats)


def repaired(findings: Iterable[Finding], given: Given) -> Iterator[tuple[str, Given]]:
    """What was changed, and what the loss is given then: once for each change."""
    done: set[str] = set()
    for finding in findings:
        known = _CHANGES.get((finding.code, finding.cause), _CHANGES.get((finding.code, "")))
        if known is None or known[0] in done:
            continue
        words, change = known
        done.add(words)
        with quiet():
            right = change(given)
        yield words, right


def log_softmax(scores: HostArray) -> HostArray:
    """Over the last axis, float64."""
    with quiet():
        peak = scores.max(axis=-1, keepdims=True)
        shifted: HostArray = scores - np.where(np.isfinite(peak), peak, 0)
        normal: HostArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normal


def _normalised(given: Given) -> Given:
    return replace(given, log_probs=log_softmax(given.log_probs))


def _logarithm(given: Given) -> Given:
    return replace(given, log_probs=np.log(given.scores))


def _first_softmax(given: Given) -> Given:
    """log_softmax adds a number to each frame: the one that makes probabilities sum to 1 again is known."""
    lift = (1 - given.scores.sum(axis=1, keepdims=True)) / given.scores.shape[1]
    return replace(given, log_probs=log_softmax(np.log(np.maximum(given.scores + lift, 0))))


def _all_frames(given: Given) -> Given:
    return replace(given, frames=len(given.log_probs))


def _without(unwanted: Callable[[Given], HostArray]) -> Change:
    return lambda given: replace(given, labels=given.labels[~unwanted(given)])


def _tail(given: Given) -> HostArray:
    """Labels of the run in which the target ends."""
    same = given.labels == given.labels[-1:]
    tail: HostArray = np.logical_and.accumulate(same[::-1])[::-1]
    return tail


_OVER_CLASSES = ("after log_softmax over the classes", _normalised)
_ALL_FRAMES = ("with all frames counted", _all_frames)
_CHANGES: dict[tuple[str, str], tuple[str, Change]] = {
    ("CTC202", ""): ("without the negative labels", _without(lambda given: given.labels < 0)),
    ("CTC203", ""): ("without the blanks among the labels", _without(lambda given: given.labels == given.blank)),
    ("CTC207", ""): ("without the padding at the end of the labels", _without(_tail)),
    ("CTC302", ""): _ALL_FRAMES,
    ("CTC304", ""): _ALL_FRAMES,
    ("CTC401", ""): _OVER_CLASSES,
    ("CTC402", ""): _OVER_CLASSES,
    ("CTC402", "probabilities"): ("after log_softmax instead of softmax", _logarithm),
    ("CTC404", "softmax-before-loss"): ("without the softmax before the loss", _logarithm),
    ("CTC404", "softmax-before-log-softmax"): ("without the first softmax", _first_softmax),
}
"""By code and cause (or any cause): what is put right, and how."""
