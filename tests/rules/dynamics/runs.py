"""A small recogniser, its data, and a guard whose patience is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ctcguard import watch
from ctcguard.finding import Severity
from ctcguard.guard import Guard

Tensor = torch.Tensor
Batch = tuple[Tensor, Tensor, Tensor, Tensor]
DYNAMICS = ("blank-collapse", "single-symbol-collapse", "no-progress", "loss-spike")
PATIENCE: dict[str, dict[str, float]] = {
    "blank-collapse": {"grace_steps": 100, "calls": 64, "fall": 0.06},
    "single-symbol-collapse": {"grace_steps": 100, "calls": 64, "fall": 0.06},
    "no-progress": {"grace_steps": 100, "calls": 64},
    "loss-spike": {"grace_steps": 100, "calls": 32},
}
"""For runs of a few hundred steps instead of thousands. Fewer calls are noisier: hence the larger fall."""


@dataclass(frozen=True)
class Language:
    """Utterances of a made-up language.

    Attributes
    ----------
    seed : int
        Of the sounds of its symbols.
    symbols : int
        Symbols beside the blank, which is class 0.
    labels, frames, silence : (int, int)
        Shortest and longest: labels of an utterance, frames of a label, frames of silence before a label.
    skew : float
        0 when all symbols are equally frequent; the larger, the more unequal.
    """

    seed: int = 0
    symbols: int = 8
    labels: tuple[int, int] = (2, 5)
    frames: tuple[int, int] = (2, 4)
    silence: tuple[int, int] = (0, 2)
    skew: float = 0.0

    def batches(self, count: int, size: int = 8, empty: float = 0.0, noise: float = 0.3) -> list[Batch]:
        """Features (time, batch, 12), targets (batch, labels), input lengths and target lengths; some of them empty."""
        generator = torch.Generator().manual_seed(1000 + self.seed)
        sounds = torch.randn(self.symbols + 1, 12, generator=generator)
        sounds[0] = 0
        weights = torch.arange(1, self.symbols + 1) ** -self.skew

        def whole(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (1,), generator=generator))

        def utterance() -> tuple[Tensor, Tensor]:
            silent = float(torch.rand(1, generator=generator)) < empty
            labels = 1 + torch.multinomial(weights, whole(*self.labels), replacement=True, generator=generator)
            path = [0] * (1 + whole(*self.silence))
            for label in labels.tolist():
                path += [0] * max(whole(*self.silence), int(path[-1] == label)) + [label] * whole(*self.frames)
            heard = sounds[torch.tensor(path) * (not silent)]
            return heard + noise * torch.randn(heard.shape, generator=generator), labels[: 0 if silent else None]

        def batch() -> Batch:
            heard, said = zip(*[utterance() for _ in range(size)], strict=True)
            lengths = [torch.tensor([len(row) for row in rows]) for rows in (heard, said)]
            targets = torch.nn.utils.rnn.pad_sequence(said, batch_first=True)
            return torch.nn.utils.rnn.pad_sequence(heard), targets, lengths[0], lengths[1]

        return [batch() for _ in range(count)]


class Recogniser(torch.nn.Module):
    """Five frames of context, hidden units, a head; (time, batch, 12) to log-probs (time, batch, classes)."""

    def __init__(self, classes: int = 9, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = torch.nn.Sequential(torch.nn.Conv1d(12, 32, 5, padding=2), torch.nn.ReLU())
        self.head = torch.nn.Linear(32, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Log-probs."""
        hidden = self.encoder(features.permute(1, 2, 0)).permute(2, 0, 1)
        scores: Tensor = self.head(hidden)
        return scores.log_softmax(-1)


def ctc(model: torch.nn.Module, batch: Batch, blank: int = 0) -> Tensor:
    """The mean loss of a batch."""
    features, targets, input_lengths, target_lengths = batch
    return torch.nn.functional.ctc_loss(model(features), targets, input_lengths, target_lengths, blank=blank)


def steps(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: list[Batch], count: int) -> Iterator[int]:
    """Train for so many steps, over and over the batches; yields before each."""
    for step in range(count):
        yield step
        optimizer.zero_grad()
        ctc(model, batches[step % len(batches)]).backward()
        optimizer.step()


def train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: list[Batch], count: int) -> None:
    """As `steps`, with nothing in between."""
    for _ in steps(model, optimizer, batches, count):
        pass


def heard_right(model: torch.nn.Module, batch: Batch) -> float:
    """The share of the utterances whose greedy transcript is right."""
    features, targets, input_lengths, target_lengths = batch
    best = model(features).argmax(-1).T
    right = 0
    for path, said, frames, labels in zip(best, targets, input_lengths, target_lengths, strict=True):
        merged = torch.unique_consecutive(path[:frames])
        right += merged[merged != 0].tolist() == said[:labels].tolist()
    return right / len(best)


def loss_of(model: torch.nn.Module, batch: Batch) -> float:
    """The mean loss of a batch, for a look at it."""
    with torch.no_grad():
        return float(ctc(model, batch))


def guarded(run: Callable[[], Any], patience: dict[str, dict[str, float]] = PATIENCE, **settings: Any) -> Guard:
    """A guard with short patience that has seen a run, all calls measured in full."""
    settings = {"on_warning": "log", "sinks": "none", "budget": None, "thresholds": patience, **settings}
    with watch(run_dir="run", **settings) as loop:
        run()
    assert loop.guard.calls > 0
    return loop.guard


def roots(guard: Guard) -> list[tuple[str, str]]:
    """Code and cause of each verdict, in the order in which they were announced; information left out."""
    return [(v.code, v.cause) for v in guard.verdicts if v.root.severity is not Severity.INFORMATION]
