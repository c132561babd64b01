"""One utterance whole, its loss by the float64 forward algorithm, and by the mistakes that are known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

import numpy as np

from ctcguard._array import HostArray
from ctcguard.readings import Readings
from ctcguard.reference import loss_of_columns

OBSERVED = "guard.observe must be given the loss of each utterance in nats, before any division"


class Explanation(NamedTuple):
    """A cause slug, the loss that this mistake gives, what it is in words, and what to write instead."""

    slug: str
    nats: float
    words: str
    fix: str


@dataclass(frozen=True)
class Whole:
    """All that the loss of one utterance depends on.

    Attributes
    ----------
    blank_of : array, (time,)
        Log-probs of the blank, nats, padded frames too.
    labels_of : array, (time, room)
        Those of the labels, padded ones too.
    ends_of : array, (time, 2)
        Those of the first and of the last class.
    labels : array, (room,)
        The labels, padding included.
    frames, count : int
        Its lengths.
    """

    blank_of: HostArray
    labels_of: HostArray
    ends_of: HostArray
    labels: HostArray
    frames: int
    count: int

    @classmethod
    def read(cls, readings: Readings) -> Whole | None:
        """None where labels or lengths are out of range: then nobody knows what the loss must be."""
        columns, labels = readings["exact_log_probs"], readings["exact_labels"].reshape(-1).astype(int)
        frames, count, classes = readings["exact_frames"], readings["exact_label_count"], readings["classes"]
        lengths_fit = 0 < frames <= len(columns) and 0 <= count <= len(labels)
        if not lengths_fit or not _are_classes([readings["blank"], *labels[: int(count)]], classes):
            return None
        return cls(columns[:, 0], columns[:, 1:], readings["exact_end_log_probs"], labels, int(frames), int(count))

    def loss(
        self,
        frames: int | None = None,
        count: int | None = None,
        blank_of: HostArray | None = None,
        repeats_need_blank: bool = True,
    ) -> float:
        """The loss in nats, with the lengths, the blank's log-probs and the rule of repeats as they are or as given."""
        frames, count = frames or self.frames, self.count if count is None else count
        blank_column = self.blank_of if blank_of is None else blank_of
        columns = np.concatenate([blank_column[:frames, None], self.labels_of[:frames, :count]], axis=1)
        return loss_of_columns(columns, self.labels[:count], repeats_need_blank=repeats_need_blank)


def explanations(readings: Readings, whole: Whole, right: float) -> Iterator[Explanation]:
    """The known mistakes with the losses that they give, the surest first."""
    yield from _other_blanks(readings, whole)
    counted = whole.labels[: whole.count]
    if (counted[1:] == counted[:-1]).any():
        fix = "let equal neighbours be entered over a blank only (k2: ctc_graph(labels, modified=False))"
        nats = whole.loss(repeats_need_blank=False)
        yield Explanation("repeats-ignored", nats, "no blank were asked for between equal labels", fix)
    yield from _other_lengths(readings, whole)
    for factor, what, fix in _scales(readings, whole):
        yield Explanation("scaled", right * factor, what, fix)


def _other_blanks(readings: Readings, whole: Whole) -> Iterator[Explanation]:
    blank, last = int(readings["blank"]), int(readings["classes"]) - 1
    for other, column in ((0, whole.ends_of[:, 0]), (last, whole.ends_of[:, 1])):
        if other != blank:
            fix = f"use one blank: the loss takes class {other}, but blank={blank} was said"
            yield Explanation("blank-index", whole.loss(blank_of=column), f"class {other} were the blank", fix)


def _other_lengths(readings: Readings, whole: Whole) -> Iterator[Explanation]:
    frames, room = len(whole.blank_of), len(whole.labels)
    if frames > whole.frames:
        words = f"all {frames} frames counted, not the {whole.frames} of its input length"
        fix = "give the loss the valid frames of each utterance, after subsampling, and let it look at no more"
        yield Explanation("wrong-length", whole.loss(frames=frames), words, fix)
    if room > whole.count and not readings["concatenated"] and _are_classes(whole.labels, readings["classes"]):
        words = f"all {room} labels of the buffer counted, not the {whole.count} of its target length"
        fix = "give the loss the number of labels of each utterance, without padding"
        yield Explanation("wrong-length", whole.loss(count=room), words, fix)


def _scales(readings: Readings, whole: Whole) -> Iterator[tuple[float, str, str]]:
    """Factors other than 1, in words, and what to write instead."""
    batch = int(readings["batch"])
    sizes = {
        f"its {whole.count} labels": whole.count,
        f"its {whole.frames} frames": whole.frames,
        f"all {len(whole.blank_of)} frames": len(whole.blank_of),
        f"the {batch} utterances of the batch": batch,
    }
    for divisor, size in sizes.items():
        if size > 1:
            yield 1 / size, f"it were divided by {divisor}", OBSERVED
    yield 1 / log(2), "it were in bits", "multiply it by ln 2: guard.observe expects nats"
    yield -1.0, "it were negated", "pass the loss, −ln of the probability, not the log-likelihood"


def _are_classes(labels: Any, classes: int) -> bool:
    return bool(((np.asarray(labels) >= 0) & (np.asarray(labels) < classes)).all())
