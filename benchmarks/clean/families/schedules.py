"""Optimizers, schedules, accumulation, clipping and scaling: steps that are large, small, skipped or late."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import lr_scheduler

from benchmarks.clean.corpus import Family, Losses
from benchmarks.clean.task import Speech

family = Family("schedules")
STEPS = 80

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "Adadelta, as CRNN has it": lambda p: torch.optim.Adadelta(p, lr=1.0),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=3e-3),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=3e-2),
    "AdamW with much weight decay": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=1.0),
    "Adam, a rate far too low": lambda p: torch.optim.Adam(p, lr=1e-6),
}


def with_optimizer(make: Callable[[Any], torch.optim.Optimizer]) -> Callable[[int], Losses]:
    def train(seed: int) -> Losses:
        lab = Speech(seed)
        lab.optimizer = make(lab.model.parameters())
        for batch in lab.batches(STEPS):
            loss = lab.loss(batch)
            lab.update(loss)
            yield loss.item()

    return train


for name, make in OPTIMIZERS.items():
    family.add(name, with_optimizer(make))


SCHEDULES: dict[str, tuple[float, Callable[[torch.optim.Optimizer], Any]]] = {
    "warm-up from 0": (3e-2, lambda o: lr_scheduler.LambdaLR(o, lambda step: min(1.0, step / 20))),
    "warm-up to a rate that hurts, then down": (
        0.3, lambda o: lr_scheduler.LambdaLR(o, lambda step: step / 20 if step < 20 else 0.85 ** (step - 20)),
    ),
    "Noam": (1.0, lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.2 * min((step + 1) ** -0.5, (step + 1) / 90))),
    "cosine with restarts": (5e-2, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=10)),
    "one cycle": (1e-2, lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.1, total_steps=STEPS)),
    "steps down": (5e-2, lambda o: lr_scheduler.StepLR(o, 20, 0.1)),
    "steps down to exactly 0": (5e-2, lambda o: lr_scheduler.MultiStepLR(o, [40], 0.0)),
    "cyclic": (1e-3, lambda o: lr_scheduler.CyclicLR(o, 1e-3, 5e-2, step_size_up=8, cycle_momentum=False)),
}  # fmt: skip


def with_schedule(rate: float, make: Callable[[torch.optim.Optimizer], Any]) -> Callable[[int], Losses]:
    def train(seed: int) -> Losses:
        lab = Speech(seed, lr=rate)
        schedule = make(lab.optimizer)
        for batch in lab.batches(STEPS):
            loss = lab.loss(batch)
            lab.update(loss)
            schedule.step()
            yield loss.item()

    return train


for name, (rate, make_schedule) in SCHEDULES.items():
    family.add(name, with_schedule(rate, make_schedule))


@family(seeds=4)
def first_steps_at_a_rate_that_hurts(seed: int) -> Losses:
    """Logits of a hundred and losses in the thousands, until the rate is low enough."""
    lab = Speech(seed)
    lab.optimizer = torch.optim.SGD(lab.model.parameters(), lr=0.3)
    schedule = lr_scheduler.ExponentialLR(lab.optimizer, 0.9)
    for batch in lab.batches(STEPS):
        loss = lab.loss(batch, reduction="sum")
        lab.update(loss)
        schedule.step()
        yield loss.item()


# ----------------------------------------------------------------------------------------------- accumulation, clipping


def accumulating(micro: int, by_hand: bool, clip: float | None) -> Callable[[int], Losses]:
    """Divided as it should be: the mean of means, or the sum over all labels of the micro-batches."""

    def train(seed: int) -> Losses:
        lab = Speech(seed)
        for batches in zip(*[lab.batches(60 * micro, size=2)] * micro, strict=True):
            labels = sum(int(batch.target_lengths.sum()) for batch in batches)
            total = 0.0
            lab.optimizer.zero_grad()
            for batch in batches:
                loss = lab.loss(batch, reduction="sum") / labels if by_hand else lab.loss(batch) / micro
                loss.backward()
                total += loss.item()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(lab.model.parameters(), clip)
            lab.optimizer.step()
            yield total

    return train


family.add("accumulation, mean of means", accumulating(4, False, None))
family.add("accumulation over all labels, clipped", accumulating(3, True, 0.3))


def clipping(clip: Callable[[Any], Any]) -> Callable[[int], Losses]:
    def train(seed: int) -> Losses:
        lab = Speech(seed)
        for batch in lab.batches(STEPS):
            lab.optimizer.zero_grad()
            loss = lab.loss(batch)
            loss.backward()
            clip(lab.model.parameters())
            lab.optimizer.step()
            yield loss.item()

    return train


family.add("clipped to a norm of 1e-3", clipping(lambda p: torch.nn.utils.clip_grad_norm_(p, 1e-3)), seeds=2)
family.add("clipped by value", clipping(lambda p: torch.nn.utils.clip_grad_value_(p, 1e-2)), seeds=2)


# --------------------------------------------------------------------------------------------------------- loss scaling


def scaling(first: float, half: bool, fused: bool = False) -> Callable[[int], Losses]:
    """Overflows in the first steps, and again each time the scale has grown: those steps are left out."""

    def train(seed: int) -> Losses:
        lab = Speech(seed)
        if fused:
            lab.optimizer = torch.optim.AdamW(lab.model.parameters(), lr=1e-2, fused=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=first, growth_interval=10)
        for batch in lab.batches(STEPS):
            lab.optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16) if half else contextlib.nullcontext():
                log_probs = lab.log_probs(batch.features)
            loss = lab.ctc(log_probs.float(), batch)
            scaler.scale(loss).backward()
            if not fused:
                scaler.unscale_(lab.optimizer)
                torch.nn.utils.clip_grad_norm_(lab.model.parameters(), 1.0)
            scaler.step(lab.optimizer)
            scaler.update()
            yield loss.item()

    return train


family.add("GradScaler, float16, the usual scale", scaling(2.0**16, half=True))
family.add("GradScaler, float16, some overflows", scaling(2.0**22, half=True))
family.add("GradScaler, float16, fused, some overflows", scaling(2.0**22, half=True, fused=True))
family.add("GradScaler, float16, the scale begins at 2^40", scaling(2.0**40, half=True))
family.add("GradScaler, float32, overflows again and again", scaling(2.0**126, half=False))


@family("one learning rate for each layer, the head far ahead", seeds=2)
def rates(seed: int) -> Losses:
    lab = Speech(seed)
    groups = [{"params": lab.encoder.parameters(), "lr": 1e-4}, {"params": lab.head.parameters(), "lr": 0.1}]
    lab.optimizer = torch.optim.Adam(groups)
    for batch in lab.batches(STEPS):
        loss = lab.loss(batch)
        lab.update(loss)
        yield loss.item()


@family("batches that grow", seeds=2)
def growing(seed: int) -> Losses:
    lab = Speech(seed)
    for step in range(STEPS):
        loss = lab.loss(lab.batch(size=2 ** (1 + step // 20)), reduction="sum")
        lab.update(loss)
        yield loss.item()


@family("one noisy batch in ten, its loss far above the rest", seeds=4)
def noisy(seed: int) -> Losses:
    """Recorded in the street: nothing can be heard, so that the loss jumps."""
    lab = Speech(seed, lr=2e-2)
    for step, batch in enumerate(lab.batches(STEPS)):
        if step % 10 == 9:
            batch.features[:] = 3 * torch.randn(batch.features.shape, generator=lab.generator)
        loss = lab.loss(batch)
        lab.update(loss)
        yield loss.item()
