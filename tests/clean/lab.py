"""Healthy trainings: a table of cases. Of each is asked: no alarm, and the same weights with and without a guard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from ctcguard import Severity, watch
from ctcguard.finding import Finding

Tensor = torch.Tensor
Weights = list[Tensor]
Train = Callable[[int], Weights]
"""Trains with a seed from start to end, and returns the final weights."""


@dataclass(frozen=True)
class Case:
    """A healthy training, the settings of its guard, and the codes that it may get as information."""

    train: Train
    information: frozenset[str]
    settings: dict[str, Any]


@dataclass
class Table:
    """Named cases; a decorator that adds one."""

    cases: dict[str, Case] = field(default_factory=dict)
    rows: list[Any] = field(default_factory=list)

    def __call__(
        self, name: str = "", seeds: int = 1, information: tuple[str, ...] = (), marks: Any = (), **settings: Any
    ) -> Callable[[Train], Train]:
        def add(train: Train) -> Train:
            title = name or train.__name__.replace("_", " ")
            assert title not in self.cases, f"two cases are called {title!r}"
            self.cases[title] = Case(train, frozenset(information), settings)
            self.rows += [pytest.param(title, seed, id=f"{title}-{seed}", marks=marks) for seed in range(seeds)]
            return train

        return add

    def check(self, title: str, seed: int) -> None:
        """No alarm in this case, and a guard that changed nothing."""
        case = self.cases[title]
        alone = case.train(seed)
        with watch(on_warning="raise", run_dir="run", **case.settings) as guard:
            guarded = case.train(seed)
        assert_clean(guard.findings, case.information)
        assert guard.guard.calls > 0
        assert_same(alone, guarded)


def assert_clean(findings: list[Finding], information: frozenset[str] = frozenset()) -> None:
    """Nothing but information, and only of these codes."""
    alarms = [finding for finding in findings if finding.severity is not Severity.INFORMATION]
    assert not alarms, "\n".join(f"{f.code} {f.cause} at step {f.step}: {f.message} ({f.evidence})" for f in alarms)
    assert {finding.code for finding in findings} <= information, [(f.code, f.message) for f in findings]


def assert_same(left: Weights, right: Weights) -> None:
    """Bit for bit."""
    assert len(left) == len(right) > 0
    for a, b in zip(left, right, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


@dataclass(frozen=True)
class Batch:
    """What a data loader yields: features (time, batch, 8), labels (batch, labels), lengths (batch,)."""

    features: Tensor
    targets: Tensor
    input_lengths: Any
    target_lengths: Any


class Lab:
    """A small recogniser with its data, optimizer and loss, to be changed by a case."""

    def __init__(self, seed: int, classes: int = 12, blank: int = 0, hidden: int = 16, lr: float = 1e-2) -> None:
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(1000 + seed)
        self.classes, self.blank = classes, blank
        self.encoder = torch.nn.Sequential(torch.nn.Linear(8, hidden), torch.nn.Tanh())
        self.head = torch.nn.Linear(hidden, classes)
        self.model = torch.nn.ModuleList([self.encoder, self.head])
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(self.model.parameters(), lr=lr)

    def whole(self, low: int, high: int, *shape: int) -> Tensor:
        """Random whole numbers, low to high, both included."""
        return torch.randint(low, high + 1, shape, generator=self.generator)

    def labels(self, batch: int, count: int) -> Tensor:
        """Random labels, never the blank, (batch, count)."""
        drawn = self.whole(0, self.classes - 2, batch, count)
        return drawn + (drawn >= self.blank)

    def batch(self, size: int = 4, frames: int = 30, labels: int = 5) -> Batch:
        """Random lengths; the longest utterance fills the time axis."""
        target_lengths = self.whole(1, labels, size)
        input_lengths = self.whole(min(frames, 2 * labels), frames, size)
        input_lengths[int(self.whole(0, size - 1))] = frames
        features = torch.randn(frames, size, 8, generator=self.generator)
        return Batch(features, self.labels(size, labels), input_lengths, target_lengths)

    def batches(self, steps: int, **shape: int) -> Iterator[Batch]:
        """One after the other."""
        for _ in range(steps):
            yield self.batch(**shape)

    def logits(self, features: Tensor) -> Tensor:
        """What the head says, (time, batch, classes)."""
        scores: Tensor = self.head(self.encoder(features))
        return scores

    def log_probs(self, features: Tensor) -> Tensor:
        """The usual: log_softmax over the classes."""
        return self.logits(features).log_softmax(-1)

    def ctc(self, log_probs: Tensor, batch: Batch, **options: Any) -> Tensor:
        """The loss of a batch."""
        options = {"blank": self.blank, **options}
        return torch.nn.functional.ctc_loss(
            log_probs, batch.targets, batch.input_lengths, batch.target_lengths, **options
        )

    def loss(self, batch: Batch, **options: Any) -> Tensor:
        """Features in, loss out."""
        return self.ctc(self.log_probs(batch.features), batch, **options)

    def update(self, loss: Tensor) -> None:
        """One step of the optimizer."""
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def weights(self, *more: torch.nn.Module) -> Weights:
        """All weights, copied."""
        modules = (self.model, *more)
        return [parameter.detach().clone() for module in modules for parameter in module.parameters()]
