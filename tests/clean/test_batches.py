"""Targets, lengths and vocabularies that are right although unusual, trained for real."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.clean.lab import Batch, Lab, Table, Tensor, Weights

healthy = Table()
Change = Callable[[Lab, Batch], Batch]


@pytest.mark.parametrize(("title", "seed"), healthy.rows)
def test_stays_silent(title: str, seed: int) -> None:
    healthy.check(title, seed)


def changed(
    change: Change, steps: int = 14, options: dict[str, Any] | None = None, **shape: int
) -> Callable[[int], Weights]:
    """A training whose batches are changed in one way."""

    def case(seed: int) -> Weights:
        lab = Lab(seed)
        for batch in lab.batches(steps, **shape):
            lab.update(lab.loss(change(lab, batch), **(options or {})).mean())
        return lab.weights()

    return case


def same(lab: Lab, batch: Batch) -> Batch:
    return batch


# ----------------------------------------------------------------------------------------------------------- reductions


for reduction in ("none", "mean", "sum"):
    healthy(f"reduction {reduction}", seeds=2)(changed(same, options={"reduction": reduction}))
    healthy(f"zero_infinity on purpose, nothing infeasible, {reduction}", seeds=2)(
        changed(same, options={"reduction": reduction, "zero_infinity": True})
    )

BY_HAND: dict[str, Callable[[Tensor, Batch], Tensor]] = {
    "mean over the batch": lambda losses, batch: losses.mean(),
    "mean over target lengths": lambda losses, batch: (losses / batch.target_lengths).mean(),
    "sum over labels of the batch": lambda losses, batch: losses.sum() / batch.target_lengths.sum(),
    "mean over frames": lambda losses, batch: (losses / batch.input_lengths).mean(),
    "weights of utterances": lambda losses, batch: (losses * torch.linspace(0, 2, len(losses))).sum(),
    "hardest utterance only": lambda losses, batch: losses.max(),
    "utterances dropped by their loss": lambda losses, batch: losses[losses < losses.median() + 5].mean(),
    "focal": lambda losses, batch: ((1 - (-losses).exp()) ** 2 * losses).mean(),
    "scaled by hand": lambda losses, batch: 1024 * losses.mean(),
    "made negative by a baseline": lambda losses, batch: (losses - losses.detach().mean() - 100).mean(),
}
for title, reduce in BY_HAND.items():

    def by_hand(seed: int, reduce: Callable[[Tensor, Batch], Tensor] = reduce) -> Weights:
        lab = Lab(seed)
        for batch in lab.batches(14):
            lab.update(reduce(lab.loss(batch, reduction="none"), batch))
        return lab.weights()

    healthy(f"reduced by hand: {title}")(by_hand)


# -------------------------------------------------------------------------------------------------------------- targets


def empty_in_part(lab: Lab, batch: Batch) -> Batch:
    """Silence or background: every second utterance has no label."""
    lengths = batch.target_lengths.clone()
    lengths[::2] = 0
    return dataclasses.replace(batch, target_lengths=lengths)


def concatenated(lab: Lab, batch: Batch) -> Batch:
    rows = [row[:n] for row, n in zip(batch.targets, batch.target_lengths.tolist(), strict=True)]
    return dataclasses.replace(batch, targets=torch.cat(rows))


def beyond(value: float) -> Change:
    """Something else behind the last label of each utterance, and two columns more of it."""

    def change(lab: Lab, batch: Batch) -> Batch:
        wide = torch.nn.functional.pad(batch.targets, (0, 2))
        unused = torch.arange(wide.shape[1]) >= batch.target_lengths[:, None]
        return dataclasses.replace(batch, targets=wide.masked_fill(unused, value))

    return change


def of_dtype(dtype: torch.dtype) -> Change:
    return lambda lab, batch: dataclasses.replace(batch, targets=batch.targets.to(dtype))


def one_letter(lab: Lab, batch: Batch) -> Batch:
    """The same label again and again: every neighbour is a repeat."""
    return dataclasses.replace(batch, targets=torch.full_like(batch.targets, 3))


for reduction in ("mean", "sum", "none"):
    options = {"reduction": reduction}
    healthy(f"empty targets in part of the batch, {reduction}", seeds=2, information=("CTC204",))(
        changed(empty_in_part, options=options)
    )
healthy("one silent clip", information=("CTC204",))(changed(empty_in_part, size=1))
healthy("two of three are silent", information=("CTC204",))(changed(empty_in_part, size=3))
healthy("empty and concatenated", seeds=2, information=("CTC204",))(
    changed(lambda lab, batch: concatenated(lab, empty_in_part(lab, batch)))
)
healthy("no room for labels at all", information=("CTC204",))(
    changed(
        lambda lab, batch: dataclasses.replace(
            batch, targets=batch.targets[:, :0], target_lengths=torch.zeros(3, dtype=torch.long)
        ),
        size=3,
    )
)
healthy("concatenated", seeds=3)(changed(concatenated))
healthy("concatenated, int32", seeds=2)(
    changed(lambda lab, batch: of_dtype(torch.int32)(lab, concatenated(lab, batch)))
)
for dtype in (torch.int32, torch.int16, torch.int8, torch.float32, torch.float64):
    healthy(f"{dtype} targets")(changed(of_dtype(dtype)))
    healthy(f"{dtype} targets, -1 beyond")(
        changed(lambda lab, batch, dtype=dtype: of_dtype(dtype)(lab, beyond(-1)(lab, batch)))
    )
for value in (0, -1, -100, 9999, 11, 12):
    healthy(f"{value} beyond target_lengths", seeds=2)(changed(beyond(value)))
healthy("NaN beyond target_lengths")(
    changed(lambda lab, batch: beyond(float("nan"))(lab, of_dtype(torch.float32)(lab, batch)))
)
healthy("the same label again and again", seeds=2)(changed(one_letter))
healthy("the same batch again and again")(changed(lambda lab, batch: Lab(0).batch()))


# -------------------------------------------------------------------------------------------------------------- lengths


def all_equal(lab: Lab, batch: Batch) -> Batch:
    frames, size = batch.features.shape[:2]
    return dataclasses.replace(batch, input_lengths=torch.full((size,), frames))


def one_label_a_frame(lab: Lab, batch: Batch) -> Batch:
    """T == L, no two neighbours equal."""
    frames, size = batch.features.shape[:2]
    targets = 1 + (torch.arange(frames)[None, :] + lab.whole(0, 9, size, 1)) % 11
    return Batch(batch.features, targets, (frames,) * size, (frames,) * size)


def exactly_tight(lab: Lab, batch: Batch) -> Batch:
    """T == L + adjacent repeats."""
    targets = lab.whole(1, 2, *batch.targets.shape)
    counts = batch.target_lengths
    repeats = [int((row[1:n] == row[: n - 1]).sum()) for row, n in zip(targets, counts.tolist(), strict=True)]
    return dataclasses.replace(batch, targets=targets, input_lengths=counts + torch.tensor(repeats))


def garbage(value: float) -> Change:
    """Finite garbage in the features beyond input_lengths."""

    def change(lab: Lab, batch: Batch) -> Batch:
        padded = torch.arange(batch.features.shape[0])[:, None] >= batch.input_lengths
        return dataclasses.replace(batch, features=batch.features.masked_fill(padded[..., None], value))

    return change


def as_written(kind: Callable[[list[int]], Any]) -> Change:
    def change(lab: Lab, batch: Batch) -> Batch:
        return dataclasses.replace(
            batch,
            input_lengths=kind(batch.input_lengths.tolist()),
            target_lengths=kind(batch.target_lengths.tolist()),
        )

    return change


def padded_to(frames: int) -> Change:
    """Static shapes: nobody fills the time axis."""

    def change(lab: Lab, batch: Batch) -> Batch:
        longer = torch.nn.functional.pad(batch.features, (0, 0, 0, 0, 0, frames - batch.features.shape[0]))
        return dataclasses.replace(batch, features=longer)

    return change


healthy("all utterances of equal length")(changed(all_equal))
healthy("as many frames as labels", seeds=3)(changed(one_label_a_frame, frames=9))
healthy("one frame, one label", seeds=2)(changed(one_label_a_frame, frames=1))
healthy("exactly tight with repeats", seeds=3)(changed(exactly_tight, labels=12))
healthy("exactly tight with repeats and zero_infinity", seeds=2)(
    changed(exactly_tight, labels=12, options={"zero_infinity": True})
)
for value in (0.0, 1e4, -1e6):
    healthy(f"features {value:g} beyond input_lengths", seeds=2)(changed(garbage(value)))
KINDS: dict[str, Callable[[list[int]], Any]] = {
    "tuples": tuple,
    "lists": list,
    "int32 tensors": lambda lengths: torch.tensor(lengths, dtype=torch.int32),
    "int16 tensors": lambda lengths: torch.tensor(lengths, dtype=torch.int16),
}
for title, kind in KINDS.items():
    healthy(f"lengths as {title}", seeds=2)(changed(as_written(kind)))
    healthy(f"lengths as {title}, concatenated")(
        changed(lambda lab, batch, kind=kind: as_written(kind)(lab, concatenated(lab, batch)))
    )
healthy("padded to a static shape", seeds=2)(changed(padded_to(64)))
healthy("padded to far more than twice", seeds=2)(changed(padded_to(400)))
healthy("one utterance a batch", seeds=2)(changed(same, size=1))


def of_widths(widths: list[int], longest: list[int], labels: int = 1) -> Callable[[int], Weights]:
    """Batches whose padding has little to do with what is in them."""

    def case(seed: int) -> Weights:
        lab = Lab(seed)
        for _ in range(36):
            width = widths[int(lab.whole(0, len(widths) - 1))]
            most = min(longest[int(lab.whole(0, len(longest) - 1))], width)
            lengths = lab.whole(min(1 if labels == 1 else 2 * labels, most), most, 4)
            lengths[0] = most
            features = torch.randn(width, 4, 8, generator=lab.generator)
            lab.update(lab.loss(Batch(features, lab.labels(4, labels), lengths, torch.full((4,), labels))))
        return lab.weights()

    return case


healthy("buckets of static shapes", seeds=4)(of_widths([64, 128, 256], [*range(33, 257)], labels=5))
healthy("buckets that are powers of two", seeds=4)(of_widths([16, 32, 64], [*range(12, 65)], labels=2))
healthy("padded to a multiple of 32", seeds=4)(of_widths([32, 64, 96], [20, 30, 50, 64, 90], labels=3))
healthy("one to three frames", seeds=4)(of_widths([1, 2, 3], [1, 2, 3]))
healthy("one to three frames in wide padding", seeds=6)(of_widths([*range(25, 41)], [1, 2, 3]))
healthy("one or two frames in wide padding", seeds=6)(of_widths([*range(25, 41)], [1, 2]))
healthy("short words after prompts of many lengths", seeds=6)(of_widths([*range(40, 90)], [2, 3, 4, 5]))
healthy("words of one length, always padded to about twice", seeds=6)(of_widths([20, 21, 22, 23], [11]))
healthy("words of about one length, padded to about twice", seeds=6)(of_widths([20, 21, 22, 23], [10, 11]))


@healthy(seeds=2, information=("CTC204", "CTC302"))
def items_that_only_fill_the_batch(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(14):
        frames, labels = batch.input_lengths.clone(), batch.target_lengths.clone()
        frames[3] = labels[3] = 0
        frames[0] = 30
        lab.update(lab.loss(Batch(batch.features, batch.targets, frames, labels)))
    return lab.weights()


@healthy(seeds=3)
def sorted_by_length_with_a_short_last_batch(seed: int) -> Weights:
    lab = Lab(seed)
    for _ in range(2):
        for frames in range(6, 60, 4):
            lab.update(lab.loss(lab.batch(frames=frames, labels=3)))
        lab.update(lab.loss(lab.batch(size=1, frames=61, labels=3)))
    return lab.weights()


@healthy(seeds=3)
def longest_first(seed: int) -> Weights:
    """Lengths fall from epoch to epoch, by a fixed share each: shapes are never what they were."""
    lab = Lab(seed)
    for frames in [int(200 * 0.85**n) for n in range(18)]:
        lab.update(lab.loss(lab.batch(frames=frames, labels=4)))
    return lab.weights()


@healthy(seeds=3)
def subsampled_in_the_model(seed: int) -> Weights:
    """Features of many lengths, lengths subsampled as the convolution does it."""
    lab = Lab(seed)
    front = torch.nn.Conv1d(8, 8, 3, stride=4)
    lab.optimizer.add_param_group({"params": list(front.parameters())})
    for _ in range(20):
        batch = lab.batch(frames=int(lab.whole(80, 240)))
        features = front(batch.features.permute(1, 2, 0)).permute(2, 0, 1)
        lengths = (batch.input_lengths - 3) // 4 + 1
        few = Batch(features, batch.targets, lengths, batch.target_lengths.clamp(max=1))
        lab.update(lab.loss(few))
    return lab.weights(front)


@healthy(seeds=2)
def masked_features(seed: int) -> Weights:
    """SpecAugment: whole stretches of time and of frequency at 0."""
    lab = Lab(seed)
    for batch in lab.batches(14):
        start = int(lab.whole(0, 15))
        batch.features[start : start + 15] = 0
        batch.features[:, :, :4] = 0
        lab.update(lab.loss(batch))
    return lab.weights()


@healthy(seeds=2)
def one_utterance_at_a_time_without_a_batch_axis(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(10):
        losses = []
        for i in range(4):
            frames, labels = int(batch.input_lengths[i]), int(batch.target_lengths[i])
            log_probs = lab.log_probs(batch.features[:frames, i])
            one = Batch(batch.features, batch.targets[i, :labels], torch.tensor(frames), torch.tensor(labels))
            losses.append(lab.ctc(log_probs, one))
        lab.update(torch.stack(losses).mean())
    return lab.weights()


@healthy(seeds=2)
def one_utterance_at_a_time_in_batches_of_one(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(10):
        losses = [
            lab.ctc(
                lab.log_probs(batch.features[: batch.input_lengths[i], i : i + 1]),
                Batch(
                    batch.features,
                    batch.targets[i : i + 1],
                    batch.input_lengths[i : i + 1],
                    batch.target_lengths[i : i + 1],
                ),
                reduction="sum",
            )
            for i in range(4)
        ]
        lab.update(torch.stack(losses).sum())
    return lab.weights()


# --------------------------------------------------------------------------------------------------------- vocabularies


LETTERS = [*"abcdefghijk"]
VOCABULARIES: dict[str, tuple[int, int, Any]] = {
    "NeMo: the blank behind the vocabulary": (12, 11, LETTERS),
    "NeMo: the number of symbols": (12, 11, 11),
    "blank first, in the list": (12, 0, ["<blank>", *LETTERS]),
    "blank first, not in the list": (12, 0, LETTERS),
    "blank last, in the list": (12, 11, [*LETTERS, "<blank>"]),
    "blank in the middle": (12, 5, [*LETTERS[:5], "<blank>", *LETTERS[5:]]),
    "<pad> is the blank": (12, 0, ["<pad>", *LETTERS]),
    "fairseq: <s> is the blank": (14, 0, ["<s>", "<pad>", "</s>", *LETTERS]),
    "special symbols beyond the head": (12, 0, ["<pad>", *LETTERS, "<s>", "</s>"]),
    "symbol to index": (12, 0, {"<blank>": 0, **{letter: i for i, letter in enumerate(LETTERS, 1)}}),
    "index to symbol": (12, 0, {0: "<blank>", **dict(enumerate(LETTERS, 1))}),
    "padded to a multiple of 8": (16, 0, ["<blank>", *LETTERS]),
    "padded to a multiple of 64": (64, 0, ["<blank>", *LETTERS]),
    "an underscore is the blank": (12, 0, ["_", *LETTERS]),
    "a hyphen is the blank, last": (12, 11, [*LETTERS, "-"]),
    "a symbol for the space between words": (13, 0, ["<blank>", "|", *LETTERS]),
    "unknown symbol": (13, 0, ["<blank>", "<unk>", *LETTERS]),
    "word pieces": (12, 11, [f"▁{letter}" for letter in LETTERS]),
    "blank last of a padded head": (16, 15, LETTERS),
    "none": (12, 0, None),
}
for title, (classes, blank, vocabulary) in VOCABULARIES.items():

    def of_vocabulary(seed: int, classes: int = classes, blank: int = blank) -> Weights:
        lab = Lab(seed, classes=classes, blank=blank)
        for batch in lab.batches(5):
            used = [i for i in range(min(classes, 12)) if i != blank]
            targets = torch.tensor(used)[batch.targets % len(used)]
            lab.update(lab.loss(dataclasses.replace(batch, targets=targets)))
        return lab.weights()

    healthy(f"vocabulary: {title}", vocabulary=vocabulary)(of_vocabulary)
