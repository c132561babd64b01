"""Log-probs made in another way than usual, and still distributions in every valid frame."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch

from benchmarks.clean.corpus import Family, Losses
from benchmarks.clean.task import Speech
from tests.clean.lab import Tensor

family = Family("normalisation")
STEPS = 60
Normalise = Callable[[Tensor], Tensor]


def log_of_softmax(eps: float) -> Normalise:
    return lambda x: (x.softmax(-1) + eps).log()


WAYS: dict[str, Normalise] = {
    "log_softmax twice": lambda x: x.log_softmax(-1).log_softmax(-1),
    "log_softmax twice, the second in bfloat16": lambda x: x.log_softmax(-1).bfloat16().log_softmax(-1).float(),
    "log(softmax)": log_of_softmax(0.0),
    "log(softmax + 1e-8)": log_of_softmax(1e-8),
    "log(softmax + 1e-6)": log_of_softmax(1e-6),
    "log(softmax + 1e-5)": log_of_softmax(1e-5),
    "log(softmax + 1e-7), then log_softmax, as Keras has it": lambda x: log_of_softmax(1e-7)(x).log_softmax(-1),
    "log of a clamped softmax": lambda x: x.softmax(-1).clamp(min=1e-7).log(),
    "logits less their logsumexp": lambda x: x - x.logsumexp(-1, keepdim=True),
    "in float64, back to float32": lambda x: x.double().log_softmax(-1).float(),
    "in float64, and the loss too": lambda x: x.double().log_softmax(-1),
    "temperature before the softmax": lambda x: (x / 0.5).log_softmax(-1),
    "logits held within a range by tanh": lambda x: (10 * (x / 10).tanh()).log_softmax(-1),
    "mixture of two softmaxes": lambda x: (
        torch.logaddexp(x.log_softmax(-1), (0.5 * x).log_softmax(-1)) - math.log(2)
    ),
    "smoothed towards uniform": lambda x: (0.95 * x.softmax(-1) + 0.05 / x.shape[-1]).log(),
    "log-probs cast to bfloat16 and back": lambda x: x.log_softmax(-1).bfloat16().float(),
    "log-probs cast to float16 and back": lambda x: x.log_softmax(-1).half().float(),
    "noise on the logits": lambda x: (x + 0.1 * torch.randn_like(x)).log_softmax(-1),
    "factorised: a blank gate, then the symbols": lambda x: torch.cat(
        [
            torch.nn.functional.logsigmoid(x[..., :1]),
            torch.nn.functional.logsigmoid(-x[..., :1]) + x[..., 1:].log_softmax(-1),
        ],
        dim=-1,
    ),
}  # fmt: skip


def training(normalise: Normalise) -> Callable[[int], Losses]:
    def train(seed: int) -> Losses:
        lab = Speech(seed)
        for batch in lab.batches(STEPS):
            loss = lab.ctc(normalise(lab.logits(batch.features)), batch)
            lab.update(loss)
            yield loss.item()

    return train


for way, normalise in WAYS.items():
    family.add(way, training(normalise), seeds=2)


def masked(value: float) -> Callable[[int], Losses]:
    """Classes of the head that no transcript uses are shut off."""

    def train(seed: int) -> Losses:
        lab = Speech(seed, classes=16)
        unused = torch.arange(16) >= 12
        for batch in lab.batches(STEPS):
            used = dataclasses.replace(batch, targets=batch.targets.clamp(max=11))
            logits = lab.logits(batch.features).masked_fill(unused, value)
            loss = lab.ctc(logits.log_softmax(-1), used)
            lab.update(loss)
            yield loss.item()

    return train


for value in (-1e4, torch.finfo(torch.float32).min):
    family.add(f"unused classes masked with {value:.3g}", masked(value), seeds=2)


def beyond_input_lengths(value: float) -> Callable[[int], Losses]:
    """Padded frames of the log-probs hold something else: torch reads none of them."""

    def train(seed: int) -> Losses:
        lab = Speech(seed)
        for batch in lab.batches(STEPS):
            padded = torch.arange(len(batch.features))[:, None] >= batch.input_lengths
            log_probs = lab.log_probs(batch.features).masked_fill(padded[..., None], value)
            loss = lab.ctc(log_probs, batch)
            lab.update(loss)
            yield loss.item()

    return train


for value in (0.0, 1e4, -1e9, math.nan, math.inf, -math.inf):
    family.add(f"{value:g} in the log-probs beyond input_lengths", beyond_input_lengths(value), seeds=2)


def of_size(frames: int, classes: int, half: torch.dtype | None = None) -> Callable[[int], Losses]:
    """Free logits on one alignment, long or wide: the loss is next to 0, and rounding may put it below."""

    def train(seed: int) -> Losses:
        generator = torch.Generator().manual_seed(seed)
        targets = torch.randint(1, classes, (1, frames // 30), generator=generator)
        path = torch.zeros(frames, dtype=torch.long)
        path[15 : 30 * targets.shape[1] : 30] = targets[0]
        logits = torch.randn(frames, 1, classes, generator=generator)
        logits += 20 * torch.nn.functional.one_hot(path, classes)[:, None, :]
        logits.requires_grad_(True)
        optimizer = torch.optim.SGD([logits], lr=10.0)
        for _ in range(50):
            optimizer.zero_grad()
            log_probs = (logits if half is None else logits.to(half)).log_softmax(-1).float()
            loss = torch.nn.functional.ctc_loss(log_probs, targets, (frames,), (targets.shape[1],), reduction="sum")
            loss.backward()
            optimizer.step()
            yield loss.item()

    return train


def of_a_head_of_zeros(classes: int, half: torch.dtype) -> Callable[[int], Losses]:
    """Every class has the same log-prob, rounded in the same direction: the sum is as far from 1 as it can be."""

    def train(seed: int) -> Losses:
        lab = Speech(seed, classes=classes, hidden=4, lr=1e-3)
        torch.nn.init.zeros_(lab.head.weight)
        torch.nn.init.zeros_(lab.head.bias)
        for batch in lab.batches(50, size=1, labels=2):
            loss = lab.ctc(lab.logits(batch.features).to(half).log_softmax(-1).float(), batch)
            lab.update(loss)
            yield loss.item()

    return train


for classes in (1850, 8400):
    family.add(f"{classes} classes, a head of zeros, bfloat16", of_a_head_of_zeros(classes, torch.bfloat16), seeds=2)
    family.add(f"{classes} classes, a head of zeros, float16", of_a_head_of_zeros(classes, torch.float16), seeds=2)

HALVES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
for name, half in HALVES.items():
    family.add(f"1500 certain frames in {name}", of_size(1500, 32, half), seeds=2)
    family.add(f"3000 classes, certain, in {name}", of_size(60, 3000, half), seeds=2)
