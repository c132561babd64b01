"""How a healthy training may go: flat for long, certain for long, all blank, back and forth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

from benchmarks.clean.corpus import Family, Losses
from benchmarks.clean.task import Print, Speech
from tests.clean.lab import Batch, Tensor

family = Family("courses")
Normalise = Callable[[Tensor], Tensor]
NORMALISATIONS: dict[str, Normalise] = {
    "float32": lambda x: x.log_softmax(-1),
    "float64": lambda x: x.double().log_softmax(-1),
    "bfloat16": lambda x: x.bfloat16().log_softmax(-1).float(),
    "float16": lambda x: x.half().log_softmax(-1).float(),
    "log(softmax + 1e-8)": lambda x: (x.softmax(-1) + 1e-8).log(),
    "log(softmax + 1e-4)": lambda x: (x.softmax(-1) + 1e-4).log(),
}


def on(lab: Speech, batches: list[Batch], normalise: Normalise, steps: int, reduction: str = "mean") -> Losses:
    """Again and again the same batches."""
    for step in range(steps):
        batch = batches[step % len(batches)]
        loss = lab.ctc(normalise(lab.logits(batch.features)), batch, reduction=reduction)
        lab.update(loss)
        yield loss.item()


def by_heart(normalise: Normalise, size: int) -> Callable[[int], Losses]:
    """One batch, learned by heart, and 150 steps more."""

    def train(seed: int) -> Losses:
        lab = Speech(seed, hidden=64, lr=3e-2)
        batch = lab.batch(size=size)
        # Features of their own, so that there is something to learn by heart.
        batch.features.normal_(generator=lab.generator)
        yield from on(lab, [batch], normalise, 250, "sum")

    return train


for name, normalise in NORMALISATIONS.items():
    family.add(f"one batch by heart, {name}", by_heart(normalise, 3), seeds=2)
    family.add(f"one utterance by heart, {name}", by_heart(normalise, 1), seeds=2)


@family("converged, and it goes on", seeds=4)
def converged(seed: int) -> Losses:
    """A task that is easy: next to no loss after a hundred steps, and 200 more."""
    lab = Speech(seed, lr=5e-2)
    lab.sounds *= 3
    for batch in lab.batches(300, size=8):
        loss = lab.loss(batch)
        lab.update(loss)
        yield loss.item()


@family("converged at a rate of 0", seeds=2)
def at_rest(seed: int) -> Losses:
    """The schedule has come to its end, and the loop goes on."""
    lab = Speech(seed, lr=5e-2)
    for step, batch in enumerate(lab.batches(160)):
        if step == 80:
            lab.optimizer.param_groups[0]["lr"] = 0.0
        loss = lab.loss(batch)
        lab.update(loss)
        yield loss.item()


@family("nothing but blanks for a hundred steps", seeds=4)
def all_blank(seed: int) -> Losses:
    """The usual plateau, made longer by a bias and a low rate."""
    lab = Speech(seed, lr=2e-3)
    with torch.no_grad():
        lab.head.bias[0] = 8.0
    for batch in lab.batches(150):
        loss = lab.loss(batch)
        lab.update(loss)
        yield loss.item()


@family("a head of nothing but zeros", seeds=2)
def uniform(seed: int) -> Losses:
    """The output is exactly uniform at first: all classes tie."""
    lab = Speech(seed)
    torch.nn.init.zeros_(lab.head.weight)
    torch.nn.init.zeros_(lab.head.bias)
    for batch in lab.batches(60):
        loss = lab.loss(batch)
        lab.update(loss)
        yield loss.item()


@family("very long lines, few labels", seeds=2)
def sparse(seed: int) -> Losses:
    """Nineteen frames of twenty are blank, and rightly so."""
    lab = Speech(seed)
    for batch in lab.batches(60, size=2, frames=300, labels=4):
        full = dataclasses.replace(batch, input_lengths=torch.full((2,), len(batch.features)))
        loss = lab.loss(full)
        lab.update(loss)
        yield loss.item()


@family("trained on noise first, then on speech", seeds=2)
def noise_first(seed: int) -> Losses:
    lab = Speech(seed)
    for step, batch in enumerate(lab.batches(120)):
        if step < 40:
            batch.features.normal_(generator=lab.generator)
        loss = lab.loss(batch)
        lab.update(loss)
        yield loss.item()


@family("another domain after the first", seeds=4)
def fine_tuning(seed: int) -> Losses:
    """Other sounds for the same labels: the loss jumps far above where it was, and comes down again."""
    lab, other = Speech(seed, lr=2e-2), Speech(seed + 77)
    for step in range(160):
        batch = (lab if step < 100 else other).batch()
        loss = lab.loss(batch)
        lab.update(loss)
        yield loss.item()


@family("the head is new after a while", seeds=2)
def new_head(seed: int) -> Losses:
    """More symbols are added: the old weights are kept, those of the new classes are random."""
    lab = Speech(seed, classes=16, lr=2e-2)
    head = torch.nn.Linear(32, 12)
    optimizer = torch.optim.AdamW([*lab.encoder.parameters(), *head.parameters()], lr=2e-2)
    for step in range(120):
        if step == 60:
            with torch.no_grad():
                lab.head.weight[:12], lab.head.bias[:12] = head.weight, head.bias
            head = lab.head
            optimizer = torch.optim.AdamW([*lab.encoder.parameters(), *head.parameters()], lr=2e-2)
        batch = lab.batch()
        few = lab.said(batch.targets.clamp(max=11), batch.target_lengths) if step < 60 else batch
        optimizer.zero_grad()
        loss = lab.ctc(head(lab.encoder(few.features)).log_softmax(-1), few)
        loss.backward()
        optimizer.step()
        yield loss.item()


@family("averaged weights are evaluated in between", seeds=2)
def averaged(seed: int) -> Losses:
    lab = Speech(seed)
    model = torch.nn.Sequential(lab.encoder, lab.head)
    average = torch.optim.swa_utils.AveragedModel(model)
    for step, batch in enumerate(lab.batches(80)):
        loss = lab.loss(batch)
        lab.update(loss)
        yield loss.item()
        average.update_parameters(model)
        if step % 8 == 7:
            with torch.no_grad():
                lab.ctc(average(batch.features).log_softmax(-1), batch)


@family("empty lines among the others", seeds=3)
def empty_lines(seed: int) -> Losses:
    """OCR of forms: one line in four is white from end to end."""
    lab = Print(seed)
    for _ in range(80):
        page = lab.page(size=6)
        white = torch.rand(6, generator=lab.generator) < 0.25
        page.features[:, white] = 1.0
        counts = page.target_lengths.masked_fill(white, 0)
        loss = lab.loss(dataclasses.replace(page, target_lengths=counts))
        lab.update(loss)
        yield loss.item()
