"""Lengths, paddings and the order of batches that look like a mistake in the data loader."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.clean.corpus import Family, Losses
from benchmarks.clean.task import Speech
from tests.clean.lab import Batch, Tensor

family = Family("lengths")
STEPS = 60
EPOCHS = 7
Batches = Callable[[Speech], Iterator[Batch]]


def training(batches: Batches, **options: Any) -> Callable[[int], Losses]:
    def train(seed: int) -> Losses:
        lab = Speech(seed)
        for batch in batches(lab):
            loss = lab.loss(batch, **options)
            lab.update(loss)
            yield loss.item()

    return train


def each(change: Callable[[Speech, Batch], Batch], **shape: int) -> Batches:
    """The usual batches, changed one by one."""
    return lambda lab: (change(lab, batch) for batch in lab.batches(STEPS, **shape))


def padded_to(frames: int, multiple: int = 1) -> Batches:
    """Static shapes: the longest utterance fills the time axis in none of the batches, or by chance."""

    def batches(lab: Speech) -> Iterator[Batch]:
        for batch in lab.batches(STEPS):
            least = max(frames, len(batch.features))
            rest = -(-least // multiple) * multiple - len(batch.features)
            yield dataclasses.replace(batch, features=torch.nn.functional.pad(batch.features, (0, 0, 0, 0, 0, rest)))

    return batches


for frames in (32, 64, 200):
    family.add(f"padded to {frames} frames", training(padded_to(frames)), seeds=2)
for multiple in (8, 32):
    family.add(f"padded to a multiple of {multiple}", training(padded_to(1, multiple)), seeds=2)


@family("buckets of three static shapes")
def buckets(seed: int) -> Losses:
    lab = Speech(seed)
    for batch in lab.batches(STEPS, labels=8):
        width = next(bucket for bucket in (20, 40, 64) if bucket >= len(batch.features))
        rest = width - len(batch.features)
        loss = lab.loss(
            dataclasses.replace(batch, features=torch.nn.functional.pad(batch.features, (0,) * 5 + (rest,)))
        )
        lab.update(loss)
        yield loss.item()


def subsampled(lab: Speech, batch: Batch) -> Batch:
    """Two frames stacked into one by the loader; an odd last frame is dropped in lengths and features alike."""
    half = len(batch.features) // 2
    features = batch.features[: 2 * half].unflatten(0, (half, 2)).mean(1)
    counts = torch.minimum(batch.target_lengths, batch.input_lengths // 4).clamp(min=1)
    return Batch(features, batch.targets, batch.input_lengths // 2, counts)


def with_a_right_context(lab: Speech, batch: Batch) -> Batch:
    """Eight frames more than lengths say, in every batch: a streaming model looks ahead."""
    return dataclasses.replace(batch, features=torch.nn.functional.pad(batch.features, (0, 0, 0, 0, 0, 8)))


def cut_at_the_edges(lab: Speech, batch: Batch) -> Batch:
    """The last frame of each utterance is left out, for its window reaches beyond the end."""
    return dataclasses.replace(batch, input_lengths=batch.input_lengths - 1)


def as_the_padded_width(lab: Speech, batch: Batch) -> Batch:
    """Silence is added to all utterances and belongs to them: wav2vec2 with group norm is trained so."""
    return dataclasses.replace(batch, input_lengths=torch.full_like(batch.input_lengths, len(batch.features)))


def garbage(value: float) -> Callable[[Speech, Batch], Batch]:
    """Something else in the features beyond input_lengths."""

    def change(lab: Speech, batch: Batch) -> Batch:
        padded = torch.arange(len(batch.features))[:, None] >= batch.input_lengths
        return dataclasses.replace(batch, features=batch.features.masked_fill(padded[..., None], value))

    return change


def of_kind(kind: Callable[[list[int]], Any]) -> Callable[[Speech, Batch], Batch]:
    return lambda lab, batch: dataclasses.replace(
        batch,
        input_lengths=kind(batch.input_lengths.tolist()),
        target_lengths=kind(batch.target_lengths.tolist()),
    )


family.add("subsampled in the loader", training(each(subsampled)))
family.add("right context of eight frames", training(each(with_a_right_context)))
family.add("one frame less than there is", training(each(cut_at_the_edges)), seeds=2)
family.add("all lengths are the padded width", training(each(as_the_padded_width)))
for value in (1e3, -1e6):
    family.add(f"features of {value:g} beyond input_lengths", training(each(garbage(value))), seeds=2)
family.add("lists of lengths", training(each(of_kind(list))), seeds=2)
family.add("int32 lengths", training(each(of_kind(lambda n: torch.tensor(n, dtype=torch.int32)))), seeds=2)
family.add("one utterance a batch", training(each(lambda lab, batch: batch, size=1)))
family.add("one utterance of one label a batch", training(each(lambda lab, batch: batch, size=1, labels=1)))
family.add("zero_infinity on purpose", training(each(lambda lab, batch: batch), zero_infinity=True), seeds=2)


# -------------------------------------------------------------------------------------------------------- exactly tight


def one_frame_a_label(lab: Speech, batch: Batch) -> Batch:
    """As many frames as labels, no two neighbours equal: there is one alignment only."""
    size, count = 4, int(lab.whole(3, 8))
    targets = 1 + (lab.whole(0, 10, size, 1) + torch.arange(count)) % 11
    features = lab.sounds[targets].transpose(0, 1) + 0.1 * torch.randn(count, size, 8, generator=lab.generator)
    return Batch(features, targets, torch.full((size,), count), torch.full((size,), count))


def not_one_frame_to_spare(lab: Speech, batch: Batch) -> Batch:
    """Two symbols, many neighbours equal: as many frames as labels and the blanks that must stand between them."""
    targets = lab.whole(1, 2, 4, 8)
    counts = lab.whole(3, 8, 4)
    rows = [row[:n].tolist() for row, n in zip(targets, counts.tolist(), strict=True)]
    paths = []
    for row in rows:
        path: list[int] = []
        for label in row:
            path += ([lab.blank] if path and path[-1] == label else []) + [label]
        paths.append(lab.sounds[path] + 0.1 * torch.randn(len(path), 8, generator=lab.generator))
    lengths = torch.tensor([len(path) for path in paths])
    return Batch(torch.nn.utils.rnn.pad_sequence(paths), targets, lengths, counts)


for zero_infinity in (False, True):
    ending = ", zero_infinity" if zero_infinity else ""
    options = {"zero_infinity": zero_infinity}
    family.add(f"as many frames as labels{ending}", training(each(one_frame_a_label), **options))
    family.add(f"exactly tight with repeats{ending}", training(each(not_one_frame_to_spare), **options))


# --------------------------------------------------------------------------------------------------------------- orders


def pool(lab: Speech, count: int = 48, labels: int = 10) -> list[tuple[Tensor, Tensor]]:
    """A data set: utterances and their labels, sorted by length."""
    targets, counts = lab.labels(count, labels), lab.whole(1, labels, count)
    rows = [row[:n] for row, n in zip(targets, counts.tolist(), strict=True)]
    return sorted(((lab.utterance(row.tolist()), row) for row in rows), key=lambda item: len(item[0]))


def collate(items: list[tuple[Tensor, Tensor]]) -> Batch:
    features, rows = zip(*items, strict=True)
    return Batch(
        torch.nn.utils.rnn.pad_sequence(features),
        torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1),
        torch.tensor([len(item) for item in features]),
        torch.tensor([len(row) for row in rows]),
    )


def epochs(order: Callable[[Speech, list[Any], int], list[Any]], size: int = 5) -> Batches:
    """Epochs over one data set; the last batch of each is short."""

    def batches(lab: Speech) -> Iterator[Batch]:
        items = pool(lab)
        for epoch in range(EPOCHS):
            ordered = order(lab, items, epoch)
            for first in range(0, len(ordered), size):
                yield collate(ordered[first : first + size])

    return batches


def shuffled(lab: Speech, items: list[Any], epoch: int) -> list[Any]:
    return [items[i] for i in torch.randperm(len(items), generator=lab.generator)]


def some_more_each_epoch(lab: Speech, items: list[Any], epoch: int) -> list[Any]:
    return shuffled(lab, items[: len(items) * (epoch + 6) // (EPOCHS + 5)], epoch)


def sorted_at_first(lab: Speech, items: list[Any], epoch: int) -> list[Any]:
    return items if epoch == 0 else shuffled(lab, items, epoch)


ORDERS: dict[str, Callable[[Speech, list[Any], int], list[Any]]] = {
    "shuffled": shuffled,
    "sorted by length": lambda lab, items, epoch: items,
    "longest first": lambda lab, items, epoch: items[::-1],
    "sorted in the first epoch": sorted_at_first,
    "short ones first, more each epoch": some_more_each_epoch,
    "without its last batch": lambda lab, items, epoch: shuffled(lab, items, epoch)[:45],
}
for name, order in ORDERS.items():
    family.add(f"epochs, {name}", training(epochs(order)))


@family("as many utterances as fit into 150 frames")
def by_frames(seed: int) -> Losses:
    """Batches of bounded area: many short ones or few long ones."""
    lab = Speech(seed)
    items = pool(lab, 120)
    for _ in range(4):
        batch: list[Any] = []
        for item in items:
            if batch and (len(batch) + 1) * len(item[0]) > 150:
                loss = lab.loss(collate(batch))
                lab.update(loss)
                yield loss.item()
                batch = []
            batch.append(item)
