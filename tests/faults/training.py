"""A short training with one wrong batch, with and without a guard: what every fault must leave as it is."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ctcguard.finding import Finding
from ctcguard.guard import Guard
from ctcguard.settings import load
from ctcguard_integrations.torch_loop import Watch, watch

STEPS, WRONG, CLASSES = 5, 2, 12
"""Of the steps, the one in which softmax takes the place of log_softmax."""
FOUND = {"CTC401", "CTC402", "CTC501"}
RUN_DIR = Path("run")
Hook = Callable[[int], object]


def nothing(step: int) -> None:
    """No fault."""


class Run(NamedTuple):
    """What a training leaves."""

    weights: list[torch.Tensor]
    losses: list[torch.Tensor]

    def same(self, other: Run) -> bool:
        """Whether every bit is."""
        pairs = zip(self.weights + self.losses, other.weights + other.losses, strict=True)
        return all(torch.equal(one, two) for one, two in pairs)


class Model(torch.nn.Sequential):
    """Two layers, always the same ones."""

    def __init__(self, seed: int = 5) -> None:
        super().__init__(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, CLASSES))
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)


def loss_of(model: torch.nn.Module, generator: torch.Generator, wrong: bool) -> torch.Tensor:
    features = torch.randn(20, 3, 8, generator=generator, device="cpu", dtype=torch.float32)
    targets = torch.randint(1, CLASSES, (3, 4), generator=generator, device="cpu")
    scores = model(features)
    log_probs = scores.softmax(-1) if wrong else scores.log_softmax(-1)
    lengths = torch.tensor([20, 18, 15], device="cpu"), torch.tensor([4, 4, 3], device="cpu")
    return torch.nn.functional.ctc_loss(log_probs, targets, *lengths)


def train(during: Hook = nothing, wrong: Iterable[int] = (WRONG,), steps: int = STEPS, model: Any = None) -> Run:
    """A user's loop; ``during`` is called at the beginning of each step."""
    model = model or Model()
    generator = torch.Generator().manual_seed(7)
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    losses = []
    for step in range(steps):
        during(step)
        loss = loss_of(model, generator, step in set(wrong))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().clone())
    return Run([parameter.detach().clone() for parameter in model.parameters()], losses)


@functools.cache
def plain() -> Run:
    """Without a guard."""
    return train()


def guarded(
    during: Hook = nothing, sinks: Iterable[Any] = (), sinks_named: tuple[str, ...] = ("jsonl",), **settings: Any
) -> Watch:
    """The same training under a guard that lets it go on; it must come out the same, bit for bit."""
    settings = {"on_error": "alert", "run_dir": RUN_DIR, "sinks": sinks_named, "budget": None, **settings}
    expected = plain()
    with watch(guard=Guard(load(**settings), sinks)) as guard:
        assert train(during).same(expected)
    return guard


def at(wanted: int, act: Callable[[], object]) -> Hook:
    """At one step only."""
    return lambda step: act() if step == wanted else None


def lines(kind: str, run_dir: Path = RUN_DIR) -> list[dict[str, Any]]:
    """What findings.jsonl holds of a kind; every line of it is whole."""
    text = (run_dir / "findings.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [record for record in map(json.loads, text.splitlines()) if record["type"] == kind]


def written(run_dir: Path = RUN_DIR) -> set[str]:
    """Codes of the errors in the file."""
    return {record["code"] for record in lines("finding", run_dir) if record["severity"] == "error"}


def own_faults(findings: Iterable[Finding]) -> list[Finding]:
    """What the guard said of itself."""
    return [finding for finding in findings if finding.code in ("CTC902", "CTC903")]
