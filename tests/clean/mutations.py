"""One mistake at a time, put into a random right call: how it is made, when it can be seen, and what must be said.

A mutation takes a right call apart (`Parts`), draws how it goes wrong and returns the wrong parts, to be judged as a
call. What cannot be seen in them is ruled out by `assume`, each time with the reason beside it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import assume

from tests.clean.random_calls import DTYPES, logits_of, looks_padded, made

CLEARLY = 0.1
"""Nats: twice the widest tolerance of a frame's sum (that of bfloat16), so that rounding decides nothing."""


@dataclass(frozen=True)
class Parts:
    """A call in numpy, its labels as rows; ``scores`` are (batch, time, classes)."""

    scores: Any
    rows: tuple[tuple[int, ...], ...]
    frames: tuple[int, ...]
    blank: int
    layout: str
    zero_infinity: bool
    counts: tuple[int, ...] | None = None
    losses: Any = None
    expects: str = "log_probs"
    vocabulary: Any = None

    @classmethod
    def of(cls, kind: dict[str, Any]) -> Parts:
        """The right call of a kind, with its losses."""
        call = made(kind | {"batch_first": True})
        scores = call["log_probs"]
        return cls(
            scores=(scores.float() if scores.dtype == torch.bfloat16 else scores).numpy(),
            rows=tuple(tuple(target) for target, _ in kind["batch"]),
            frames=tuple(valid for _, valid in kind["batch"]),
            blank=kind["blank"],
            layout=kind["targets"],
            zero_infinity=kind["zero_infinity"],
            losses=call["losses"].numpy(),
        )

    @property
    def time(self) -> int:
        """Length of the time axis."""
        return int(self.scores.shape[1])

    @property
    def classes(self) -> int:
        """Width of the scores."""
        return int(self.scores.shape[2])

    @property
    def room(self) -> int:
        """Width of the targets."""
        return len(sum(self.rows, ())) if self.layout == "concatenated" else max(map(len, self.rows))

    def valid(self) -> Any:
        """The valid frames of all utterances, (frames, classes), in float64."""
        return np.concatenate([self.scores[i, :n] for i, n in enumerate(self.frames)]).astype(np.float64)

    def call(self) -> dict[str, Any]:
        """As `diagnose` takes it."""
        fill = {"padded with -1": -1, "padded with 9999": 9999}.get(self.layout, 0)
        if self.layout == "concatenated":
            targets = np.asarray(sum(self.rows, ()), dtype=np.int64)
        else:
            rows = [[*row, *[fill] * (self.room - len(row))] for row in self.rows]
            targets = np.asarray(rows, dtype=np.float32 if self.layout == "float" else np.int64).reshape(len(rows), -1)
        return {
            self.expects: self.scores,
            "targets": targets,
            "input_lengths": list(self.frames),
            "target_lengths": [*map(len, self.rows)] if self.counts is None else list(self.counts),
            "blank": self.blank,
            "losses": self.losses,
            "zero_infinity": self.zero_infinity,
            **({"framework": "torch", "source": "torch.ctc_loss"} if self.expects == "log_probs" else {}),
            **({} if self.vocabulary is None else {"vocabulary": self.vocabulary}),
        }

    def with_row(self, index: int, row: tuple[int, ...]) -> Parts:
        """Other labels for one utterance."""
        return replace(self, rows=(*self.rows[:index], row, *self.rows[index + 1 :]))

    def with_frames(self, index: int, frames: int) -> Parts:
        """Another input length for one utterance."""
        return replace(self, frames=(*self.frames[:index], frames, *self.frames[index + 1 :]))

    def with_loss(self, index: int, loss: float) -> Parts:
        """Another loss for one utterance."""
        losses = self.losses.copy()
        losses[index] = loss
        return replace(self, losses=losses)


class Wrong(NamedTuple):
    """Wrong parts, the root that must be found and symptoms that must be in its verdict.

    ``beside`` are codes of further verdicts that are right as well.
    """

    parts: Parts
    code: str
    cause: str
    also: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()


Mutation = Callable[[st.DataObject, dict[str, Any], Parts], Wrong]
MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    """Into the table, by its name."""
    MUTATIONS[function.__name__.replace("_", " ")] = function
    return function


def needed(row: tuple[int, ...]) -> int:
    """Frames that labels need at least: one each, and one for the blank between equal neighbours."""
    return len(row) + sum(a == b for a, b in itertools.pairwise(row))


def one(data: st.DataObject, parts: Parts, fits: Callable[[int], bool] = lambda index: True) -> int:
    """An utterance for which something holds; the example is dropped where there is none."""
    indices = [i for i in range(len(parts.rows)) if fits(i)]
    assume(indices)
    return data.draw(st.sampled_from(indices))


def with_labels(data: st.DataObject, parts: Parts) -> tuple[int, int]:
    """An utterance that has labels, and the position of one of them."""
    index = one(data, parts, lambda i: len(parts.rows[i]) > 0)
    return index, data.draw(st.integers(0, len(parts.rows[index]) - 1))


def relabelled(parts: Parts, index: int, at: int, label: int) -> Parts:
    """One label is another; the losses are what a loss that checks nothing may well have returned."""
    row = parts.rows[index]
    return parts.with_row(index, (*row[:at], label, *row[at + 1 :]))


# --------------------------------------------------------------------------------------------------------------- labels


@mutation
def label_out_of_range(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    beyond = data.draw(st.integers(0, 100))
    wrong = relabelled(parts, *with_labels(data, parts), parts.classes + beyond)
    return Wrong(wrong, "CTC201", "label-beyond-head" if beyond else "no-class-for-blank")


@mutation
def label_out_of_range_in_a_known_vocabulary(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    label = parts.classes + data.draw(st.integers(0, 100))
    wrong = relabelled(parts, *with_labels(data, parts), label)
    return Wrong(replace(wrong, vocabulary=label + 1), "CTC101", "missing-classes", frozenset({"CTC201"}))


@mutation
def negative_label(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    label = data.draw(st.sampled_from([-100, -1]) | st.integers(-99, -1))
    wrong = relabelled(parts, *with_labels(data, parts), label)
    return Wrong(wrong, "CTC202", "ignore-index" if label == -100 else "padding")


@mutation
def blank_in_the_target(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    index, at = with_labels(data, parts)
    wrong = relabelled(parts, index, at, parts.blank)
    return Wrong(wrong, "CTC203", "padding-counted" if at == len(parts.rows[index]) - 1 else "blank-index")


@mutation
def padding_counted_as_labels(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    fill = data.draw(st.sampled_from([-1, -100, parts.blank, parts.classes, parts.classes + 7]))
    room = parts.room if parts.layout != "concatenated" else max(map(len, parts.rows))
    # Where all targets are equally long there is no padding to count.
    assume(any(len(row) < room for row in parts.rows))
    # Nor may the others look as if they held padding of another kind.
    assume(not looks_padded([[*row] for row in parts.rows if len(row) == room]))
    rows = tuple((*row, *[fill] * (room - len(row))) for row in parts.rows)
    code, cause = {
        -1: ("CTC202", "padding"),
        -100: ("CTC202", "ignore-index"),
        parts.blank: ("CTC203", "padding-counted"),
        parts.classes: ("CTC201", "no-class-for-blank"),
    }.get(fill, ("CTC201", "label-beyond-head"))
    return Wrong(replace(parts, rows=rows), code, cause)


@mutation
def every_target_empty(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    # A batch of fewer may be empty by chance.
    copies = data.draw(st.integers(64, 66))
    whole = replace(
        parts,
        scores=np.concatenate([parts.scores[:1]] * copies),
        rows=((),) * copies,
        frames=parts.frames[:1] * copies,
        losses=None,
    )
    return Wrong(whole, "CTC204", "all-empty")


# -------------------------------------------------------------------------------------------------------------- lengths


def short_loss(data: st.DataObject, parts: Parts) -> tuple[float | None, frozenset[str]]:
    """What a loss may say of an utterance without any alignment, and the symptoms that follow."""
    loss = data.draw(st.sampled_from([None, math.inf, 0.0, 709.0, 1e5, 100_001.3]))
    if loss is None:
        return None, frozenset()
    return loss, frozenset({"CTC503"} if math.isfinite(loss) else {"CTC502"})


@mutation
def fewer_frames_than_labels_need(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    # One label fits into one frame: fewer than one are no frames at all.
    index = one(data, parts, lambda i: needed(parts.rows[i]) >= 2)
    row = parts.rows[index]
    short = parts.with_frames(index, data.draw(st.integers(1, needed(row) - 1)))
    # No length above 1 on a long time axis: relative lengths, cut to whole numbers, look the same (CTC304).
    assume(max(short.frames) > 1 or len(short.frames) == 1 or short.time < 10)
    loss, also = short_loss(data, parts)
    short = replace(short, losses=None) if loss is None else short.with_loss(index, loss)
    cause = "too-short" if short.frames[index] < len(row) else "repeats"
    return Wrong(short, "CTC301", cause, also)


@mutation
def fewer_frames_than_labels_need_in_all_utterances(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    assume(len(parts.rows) > 1 and all(needed(row) >= 2 for row in parts.rows))
    frames = tuple(data.draw(st.integers(1, needed(row) - 1)) for row in parts.rows)
    assume(max(frames) > 1 or parts.time < 10)  # as above
    return Wrong(replace(parts, frames=frames, losses=None), "CTC301", "most-of-the-batch")


def without_garbage(kind: dict[str, Any], parts: Parts) -> Parts:
    """Padded frames are distributions too: garbage that is counted as valid is a second fault (CTC402)."""
    return of(parts, logits(kind, parts).log_softmax(-1))


@mutation
def length_beyond_time(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    # By more than half of the time axis it is near a multiple of it, and may be a length before subsampling (CTC304).
    excess = data.draw(st.integers(1, max(1, parts.time // 2)))
    long = without_garbage(kind, parts).with_frames(one(data, parts), parts.time + excess)
    return Wrong(long, "CTC302", "beyond-time")


@mutation
def lengths_before_subsampling(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    # On fewer than ten frames a ratio says nothing; with spare frames the longest is no multiple of the time axis.
    assume(parts.time >= 10 and max(parts.frames) == parts.time)
    factor = data.draw(st.integers(2, 8))
    frames = tuple(factor * n for n in parts.frames)
    wrong = replace(without_garbage(kind, parts), frames=frames)
    return Wrong(wrong, "CTC304", "not-subsampled", frozenset({"CTC302"}))


@mutation
def lengths_as_shares(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    # On fewer than ten frames, or of one utterance, a share says nothing; a label needs more than a share of a frame.
    assume(parts.time >= 10 and len(parts.rows) > 1 and any(len(row) > 1 for row in parts.rows))
    longest = max(parts.frames)
    shares: Any = tuple(n / longest for n in parts.frames)
    return Wrong(replace(parts, frames=shares, losses=None), "CTC304", "fraction")


@mutation
def no_frames_for_labels(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    # Without labels such an item only fills the batch.
    index = one(data, parts, lambda i: len(parts.rows[i]) > 0)
    none = parts.with_frames(index, data.draw(st.integers(-3, 0)))
    assume(max(none.frames) != 1 or parts.time < 10)  # relative lengths, as above
    return Wrong(replace(none, losses=None), "CTC302", "below-one")


@mutation
def target_length_beyond_the_buffer(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    # A row of all labels has no width of its own; padding of 9999 is no class, and a fault by itself (CTC201).
    padded = replace(parts, layout="padded" if parts.layout in ("concatenated", "padded with 9999") else parts.layout)
    index, counts = one(data, parts), [*map(len, parts.rows)]
    counts[index] = padded.room + data.draw(st.integers(1, 20))
    # Counts that fit the time axis beside frames that fit the labels: then the two may have been exchanged.
    above = all(n < count for n, count in zip(parts.frames, counts, strict=True))
    assume(not above or max(parts.frames) > padded.room or max(counts) > parts.time)
    assume(max(parts.frames) > 1 or len(counts) == 1 or parts.time < 10)  # relative lengths, as above
    return Wrong(replace(padded, counts=tuple(counts), losses=None), "CTC303", "beyond-buffer")


@mutation
def negative_target_length(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    index, counts = one(data, parts), [*map(len, parts.rows)]
    counts[index] = data.draw(st.integers(-5, -1))
    return Wrong(replace(parts, counts=tuple(counts), losses=None), "CTC303", "negative")


@mutation
def lengths_that_do_not_add_up(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    index, counts = one(data, parts), [*map(len, parts.rows)]
    change = data.draw(st.integers(-counts[index], 9).filter(bool))
    counts[index] += change
    assume(max(parts.frames) > 1 or len(counts) == 1 or parts.time < 10)  # relative lengths, as above
    row = replace(parts, layout="concatenated", counts=tuple(counts), losses=None)
    return Wrong(row, "CTC303", "sum-mismatch")


# --------------------------------------------------------------------------------------------------------------- scores


def logits(kind: dict[str, Any], parts: Parts) -> torch.Tensor:
    """What the scores were made of, (batch, time, classes), without garbage in padded frames."""
    generator = torch.Generator().manual_seed(kind["seed"])
    return logits_of(kind, parts.time, generator).transpose(0, 1).to(DTYPES[kind["softmax"]])


def of(parts: Parts, scores: torch.Tensor) -> Parts:
    """These scores, in the dtype that they had; what the loss returned is not known."""
    return replace(parts, scores=scores.float().numpy().astype(parts.scores.dtype), losses=None)


def worst_sum(scores: Any) -> float:
    """How far the classes of a frame are from a sum of 1, in nats, at most."""
    return float(np.max(np.abs(np.logaddexp.reduce(scores.astype(np.float64), axis=-1))))


def assume_clearly_unnormalised(wrong: Parts) -> None:
    """A sharp or a lucky distribution stays one; and in more than 65,536 values the frame may not be in the sample."""
    assume(wrong.scores.size <= 65_536)
    assume(worst_sum(wrong.valid()) > CLEARLY)


def assume_normalised_over_no_other_axis(wrong: Parts) -> None:
    """Two equal frames of probability 1/2 each are a distribution over time, by chance; more than 8,192 are sampled."""
    scores = wrong.scores.astype(np.float64)
    assume(wrong.scores.size <= 8_192)
    for axis in (1, 0):
        assume(scores.shape[axis] == 1 or worst_sum(np.moveaxis(scores, axis, -1)) > CLEARLY)


@mutation
def raw_logits(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    wrong = of(parts, logits(kind, parts))
    assume_clearly_unnormalised(wrong)
    valid = wrong.valid()
    # Without a value above 0 some softmax has run, as far as one can see; without one below 0 it may be one.
    assume(valid.max() > CLEARLY and (valid.min() < 0 or abs(valid.sum(-1) - 1).max() > CLEARLY))
    return Wrong(wrong, "CTC402", "raw-logits", frozenset({"CTC401"}))


@mutation
def probabilities(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    wrong = of(parts, logits(kind, parts).softmax(-1))
    assume(wrong.scores.size <= 65_536)
    return Wrong(wrong, "CTC402", "probabilities")


@mutation
def temperature_after_log_softmax(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    factor = data.draw(st.sampled_from([0.2, 0.5, 0.8, 1.25, 2.0, 5.0]))
    wrong = of(parts, factor * logits(kind, parts).log_softmax(-1))
    assume_clearly_unnormalised(wrong)
    assume_normalised_over_no_other_axis(wrong)
    return Wrong(wrong, "CTC402", "altered-after-softmax")


@mutation
def bonus_for_the_blank(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    scores = logits(kind, parts).log_softmax(-1).float()
    scores[..., parts.blank] -= data.draw(st.sampled_from([0.5, 3.0, 20.0]))
    wrong = of(parts, scores)
    assume_clearly_unnormalised(wrong)
    assume_normalised_over_no_other_axis(wrong)
    return Wrong(wrong, "CTC402", "altered-after-softmax")


def over_axis(axis: int) -> Mutation:
    def wrong_axis(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
        # One frame, or one utterance, has nothing to be normalised over: all scores would be 0.
        assume(parts.scores.shape[axis] > 1)
        wrong = of(parts, logits(kind, parts).log_softmax(axis))
        assume_clearly_unnormalised(wrong)
        assume(wrong.scores.size <= 8_192)
        return Wrong(wrong, "CTC402", "wrong-axis")

    return wrong_axis


MUTATIONS["softmax over time"] = over_axis(1)
MUTATIONS["softmax over the batch"] = over_axis(0)


def poisoned(parts: Parts, index: int, frame: Any, value: float, classes: Any) -> Parts:
    scores = parts.scores.copy()
    scores[index, frame, classes] = value
    return replace(parts, scores=scores, losses=None)


def valid_frame(data: st.DataObject, parts: Parts) -> tuple[int, int]:
    index = one(data, parts)
    return index, data.draw(st.integers(0, parts.frames[index] - 1))


@mutation
def nan_in_a_valid_frame(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    index, frame = valid_frame(data, parts)
    # A batch whose frames are NaN one and all is the whole batch, not one clip.
    assume(len(parts.rows) == 1 or any(n > (i == index) for i, n in enumerate(parts.frames)))
    wrong = poisoned(parts, index, frame, math.nan, data.draw(st.integers(0, parts.classes - 1)))
    also: frozenset[str] = frozenset()
    if data.draw(st.booleans()):
        wrong, also = replace(wrong, losses=parts.losses).with_loss(index, math.nan), frozenset({"CTC502"})
    return Wrong(wrong, "CTC403", "non-finite-features", also)


@mutation
def nan_everywhere(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    assume(len(parts.rows) > 1)  # of one utterance nobody knows whether it is the features or the weights
    wrong = replace(parts, scores=np.full_like(parts.scores, math.nan), losses=np.full_like(parts.losses, math.nan))
    return Wrong(wrong, "CTC403", "whole-batch", frozenset({"CTC502"}))


@mutation
def infinity_in_a_valid_frame(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    wrong = poisoned(parts, *valid_frame(data, parts), math.inf, data.draw(st.integers(0, parts.classes - 1)))
    return Wrong(wrong, "CTC403", "overflow")


@mutation
def valid_frame_masked(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    return Wrong(poisoned(parts, *valid_frame(data, parts), -math.inf, slice(None)), "CTC403", "masking")


@mutation
def label_masked(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    """A class that a target needs is shut off, before the softmax: every frame is a distribution, no alignment is."""
    index, at = with_labels(data, parts)
    label = parts.rows[index][at]
    masked = logits(kind, parts).double()
    masked[..., label] = -math.inf
    wrong = of(parts, masked.log_softmax(-1))
    assume(wrong.scores.size <= 65_536)
    blocked = [label in row for row in parts.rows]
    losses = np.where(blocked, math.inf, 0.0)
    for i in np.flatnonzero(~np.asarray(blocked)):
        losses[i] = exact(wrong, int(i))
    # A loss behind zero_infinity is 0 here, which a certain one is, too.
    wrong = replace(wrong, losses=losses, zero_infinity=False)
    return Wrong(wrong, "CTC403", "log-of-softmax", frozenset({"CTC502"}))


def exact(parts: Parts, index: int) -> float:
    """The loss of one utterance by torch, in float64."""
    frames, row = parts.frames[index], parts.rows[index]
    scores = torch.from_numpy(parts.scores[index, :frames].astype(np.float64))
    targets = torch.tensor(row, dtype=torch.long)
    return float(
        torch.nn.functional.ctc_loss(scores, targets, (frames,), (len(row),), parts.blank, reduction="sum").item()
    )


# --------------------------------------------------------------------------------------------------------------- losses


def in_half(parts: Parts) -> bool:
    """Whether the scores are: then the loss may have been computed in half precision, and no bound is exact."""
    return bool(parts.scores.dtype == np.float16)


@mutation
def negative_loss(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    # Half precision, log(softmax + eps) and long utterances bring right losses below 0, too: by less than 1 nat.
    loss = data.draw(st.floats(-1e6, -1.0))
    # So low a loss is below every alignment, too.
    return Wrong(parts.with_loss(one(data, parts), loss), "CTC501", "negative", beside=frozenset({"CTC504"}))


@mutation
def loss_is_nan(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    return Wrong(parts.with_loss(one(data, parts), math.nan), "CTC502", "nan")


@mutation
def loss_is_infinite(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    # Without a second frame for every label but one, no alignment is tried whose cost could be known (CTC403 then says
    # that values may add up to -inf); without any label in the batch there is none to be tried either.
    assume(parts.room > 0)
    index = one(data, parts, lambda i: parts.frames[i] >= 2 * len(parts.rows[i]) - 1)
    return Wrong(parts.with_loss(index, math.inf), "CTC502", "infinite")


def least(parts: Parts, index: int) -> float:
    """What no right loss is below: every alignment is the best path."""
    row, frames = parts.rows[index], parts.frames[index]
    best = parts.scores[index, :frames].astype(np.float64).max(-1).sum()
    alignments = math.comb(frames + 2 * len(row) - needed(row), 2 * len(row))
    return float(-best - math.log(alignments))


def slack(nats: float) -> float:
    """More than rounding may move a loss of these few frames."""
    return 0.02 + 1e-2 * abs(nats)


@mutation
def loss_hidden_as_zero(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    assume(not in_half(parts) and parts.room > 0)
    # 0 is right for a certain output, and within the bound where alignments are many.
    index = one(data, parts, lambda i: least(parts, i) > slack(least(parts, i)))
    return Wrong(parts.with_loss(index, 0.0), "CTC504", "zero-without-certainty")


@mutation
def loss_above_an_alignment(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    assume(not in_half(parts) and parts.room > 0)
    index = one(data, parts, lambda i: parts.frames[i] >= 2 * len(parts.rows[i]) - 1)  # as above
    row, frames = parts.rows[index], parts.frames[index]
    path = [row[t // 2] if t % 2 == 0 and t // 2 < len(row) else parts.blank for t in range(frames)]
    cost = -float(parts.scores[index, range(frames), path].astype(np.float64).sum())
    return Wrong(parts.with_loss(index, 2 * cost + 1), "CTC504", "above-one-alignment")


# -------------------------------------------------------------------------------------------------- blank, other losses


@mutation
def blank_out_of_range(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    beyond = data.draw(st.integers(-3, 50))
    blank = beyond if beyond < 0 else parts.classes + beyond
    cause = "negative" if beyond < 0 else "blank-beyond-head" if beyond else "no-class-for-blank"
    return Wrong(replace(parts, blank=blank, losses=None), "CTC103", cause)


@mutation
def probabilities_for_a_loss_that_has_a_softmax(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    wrong = of(parts, logits(kind, parts).softmax(-1))
    assume(wrong.scores.size <= 65_536)
    return Wrong(replace(wrong, expects="logits"), "CTC404", "softmax-before-loss")


@mutation
def padding_of_nan_that_the_loss_reads(data: st.DataObject, kind: dict[str, Any], parts: Parts) -> Wrong:
    index = one(data, parts, lambda i: parts.frames[i] < parts.time)
    wrong = poisoned(parts, index, slice(parts.frames[index], None), math.nan, 0)
    wrong = replace(wrong, expects="logits", losses=parts.losses).with_loss(index, math.nan)
    return Wrong(wrong, "CTC502", "padded-frames")
