"""How training goes, judged soon: the rules about that wait for thousands of steps, here for 128, and look at 64 calls.

Everything is about a sixteenth of its usual length: the plateau, the restarts, the bad stretches. Some runs are long
enough for the thresholds as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.optim import lr_scheduler

from benchmarks.clean.corpus import Family, Losses
from benchmarks.clean.task import Speech
from ctcguard.rules import ALL
from tests.clean.lab import Batch

family = Family("dynamics")
SOON = {"grace_steps": 128, "calls": 64}
STEPS, LONG = 320, 2600


def soon() -> dict[str, dict[str, Any]]:
    """Thresholds for the rules CTC7xx."""
    rules = [rule for rule in ALL if rule.code.startswith("CTC7")]
    assert rules
    return {rule.code: {name: value for name, value in SOON.items() if name in rule.model_fields} for rule in rules}


Change = Callable[[Speech, int, Batch], Batch]
Schedule = Callable[[torch.optim.Optimizer], Any]


def constant(optimizer: torch.optim.Optimizer) -> Any:
    return lr_scheduler.ConstantLR(optimizer, 1.0)


def training(
    change: Change = lambda lab, step, batch: batch,
    schedule: Schedule = constant,
    steps: int = STEPS,
    make: Callable[[int], Speech] = lambda seed: Speech(seed, lr=2e-2),
    **shape: int,
) -> Callable[[int], Losses]:
    def train(seed: int) -> Losses:
        lab = make(seed)
        rate = schedule(lab.optimizer)
        for step, batch in enumerate(source(lab, steps, **shape)):
            loss = lab.loss(change(lab, step, batch))
            lab.update(loss)
            rate.step()
            yield loss.item()

    return train


def source(lab: Speech, steps: int, **shape: int) -> Iterator[Batch]:
    """New batches for a short run; epochs over 150 of them for a long one."""
    if steps <= STEPS:
        yield from lab.batches(steps, **shape)
        return
    kept = [*lab.batches(150, **shape)]
    for step in range(steps):
        yield kept[step % len(kept)]


def every_tenth_is_noise(lab: Speech, step: int, batch: Batch) -> Batch:
    noise = 3 * torch.randn(batch.features.shape, generator=lab.generator)
    return dataclasses.replace(batch, features=noise) if step % 10 == 9 else batch


def a_bad_stretch(lab: Speech, step: int, batch: Batch) -> Batch:
    """Sixteen batches of a corpus that cannot be heard."""
    noise = 3 * torch.randn(batch.features.shape, generator=lab.generator)
    return dataclasses.replace(batch, features=noise) if 200 <= step < 216 else batch


def a_third_is_wrong(lab: Speech, step: int, batch: Batch) -> Batch:
    """Transcripts from the web: each third one is another one."""
    wrong = torch.rand(len(batch.targets), generator=lab.generator) < 1 / 3
    others = lab.labels(*batch.targets.shape)
    return dataclasses.replace(batch, targets=torch.where(wrong[:, None], others, batch.targets))


def barely_audible(lab: Speech, step: int, batch: Batch) -> Batch:
    """A task on which the error rate stays high: noise as loud as the sounds."""
    noise = 0.8 * torch.randn(batch.features.shape, generator=lab.generator)
    return dataclasses.replace(batch, features=batch.features + noise)


def background(share: float) -> Change:
    def change(lab: Speech, step: int, batch: Batch) -> Batch:
        counts = batch.target_lengths * (torch.rand(len(batch.targets), generator=lab.generator) >= share)
        return lab.said(batch.targets, counts, frames=len(batch.features))

    return change


def sparse(lab: Speech, step: int, batch: Batch) -> Batch:
    """Full lengths: nineteen frames of twenty are blank, and rightly so."""
    return dataclasses.replace(batch, input_lengths=torch.full_like(batch.input_lengths, len(batch.features)))


def mostly_one_label(lab: Speech, step: int, batch: Batch) -> Batch:
    often = torch.rand(batch.targets.shape, generator=lab.generator) < 0.8
    return lab.said(batch.targets.masked_fill(often, 1), batch.target_lengths)


def one_frame_a_label(lab: Speech, step: int, batch: Batch) -> Batch:
    """No frame is left for a blank: it never wins."""
    count = int(lab.whole(3, 8))
    targets = 1 + (lab.whole(0, 10, 4, 1) + torch.arange(count)) % 11
    features = lab.sounds[targets].transpose(0, 1) + 0.3 * torch.randn(count, 4, 8, generator=lab.generator)
    return Batch(features, targets, torch.full((4,), count), torch.full((4,), count))


def longer_and_longer(lab: Speech, step: int, batch: Batch) -> Batch:
    return lab.batch(labels=2 + step // 40)


def other_sounds_later(lab: Speech, step: int, batch: Batch) -> Batch:
    if step == 200:
        lab.sounds = lab.sounds.roll(3, dims=0)
        lab.sounds[lab.blank] = 0
    return lab.said(batch.targets, batch.target_lengths)


def blank_bias(seed: int) -> Speech:
    """The plateau is longer than usual, and over before the grace period is."""
    lab = Speech(seed, lr=2e-2)
    with torch.no_grad():
        lab.head.bias[0] = 4.0
    return lab


def slow(seed: int) -> Speech:
    """A pretrained encoder under a head of its own, at a low rate: it falls a little all the time."""
    return Speech(seed, lr=3e-3)


COURSES: dict[str, Callable[[int], Losses]] = {
    "as usual": training(),
    "one utterance a batch": training(size=1),
    "a long plateau of blanks": training(make=blank_bias),
    "a low rate": training(make=slow),
    "restarts": training(schedule=lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=64)),
    "restarts at a rate that hurts": training(
        schedule=lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=80),
        make=lambda seed: Speech(seed, lr=0.15),
    ),
    "a rate of 0 at the end": training(schedule=lambda o: lr_scheduler.MultiStepLR(o, [160], 0.0)),
    "every tenth batch is noise": training(every_tenth_is_noise),
    "a bad stretch": training(a_bad_stretch),
    "a third of the transcripts is wrong": training(a_third_is_wrong),
    "barely audible": training(barely_audible),
    "half of the clips is background": training(background(0.5)),
    "nine clips of ten are background": training(background(0.9), size=16),
    "long pauses": training(sparse, frames=120, size=2, labels=3),
    "mostly one label": training(mostly_one_label),
    "one frame a label": training(one_frame_a_label),
    "longer and longer": training(longer_and_longer),
    "other sounds later": training(other_sounds_later),
}  # fmt: skip
for name, train in COURSES.items():
    family.add(name, train, seeds=4, thresholds=soon())

long_runs: dict[str, Callable[[int], Losses]] = {
    "2600 steps, as usual": training(steps=LONG),
    "2600 steps, long pauses": training(sparse, steps=LONG, frames=120, size=2, labels=3),
    "2600 steps, every tenth batch is noise": training(every_tenth_is_noise, steps=LONG),
    "2600 steps, half of the clips is background": training(background(0.5), steps=LONG),
    "2600 steps, a third of the transcripts is wrong": training(a_third_is_wrong, steps=LONG),
    "2600 steps, restarts": training(
        schedule=lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=600), steps=LONG
    ),
}
for name, train in long_runs.items():
    family.add(name, train, seeds=2)
