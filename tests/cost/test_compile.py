"""Under torch.compile a guard adds no graph break and no recompilation, and sees every call."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch._dynamo.exc import RecompileError
from torch._dynamo.utils import counters

from ctcguard import watch

STEPS, CLASSES = 10, 12
Loss = Callable[..., torch.Tensor]
LOSSES: dict[str, Loss] = {
    "torch.nn.CTCLoss": torch.nn.CTCLoss(),
    "F.ctc_loss": F.ctc_loss,
    "torch.ctc_loss": lambda *call: torch.ctc_loss(*call, 0, 1, False),
    "zero_infinity": functools.partial(F.ctc_loss, zero_infinity=True),
}
SHORT = {"budget": 1e-9}
"""The first 32 calls are measured in full, the last ones in short."""

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # dynamo looks at .grad of non-leaf tensors
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


class Compiled(NamedTuple):
    """What became of a training."""

    breaks: int
    graphs: int
    weights: torch.Tensor
    calls: int


def batch(step: int, utterances: int = 3) -> tuple[torch.Tensor, ...]:
    """Other values in each step, of one shape."""
    random = torch.Generator().manual_seed(step)
    targets = torch.randint(1, CLASSES, (utterances, 5), generator=random)
    lengths = [torch.randint(low, high, (utterances,), generator=random) for low, high in ((20, 31), (2, 6))]
    return torch.randn(30, utterances, 8, generator=random), targets, *lengths


def trained(loss: Loss, settings: dict[str, Any] | None, batches: list[Any]) -> Compiled:
    """Train a compiled step with four losses; after the first step, a recompilation is an error."""

    def step(net: torch.nn.Module, features: torch.Tensor, *labels: torch.Tensor) -> torch.Tensor:
        log_probs = net(features).log_softmax(-1)
        one, two = loss(log_probs, *labels), loss(log_probs, *labels)
        return one + two + loss(log_probs * 1.0, *labels) + loss(log_probs, *labels)

    torch.compiler.reset()
    counters.clear()
    torch.manual_seed(0)
    net = torch.nn.Linear(8, CLASSES)
    optimizer = torch.optim.SGD(net.parameters(), 1e-2)
    guard = None if settings is None else watch(sinks=(), **settings)
    compiled = torch.compile(step, backend="eager")  # breaks and graphs are made before a backend is asked
    try:
        for number, given in enumerate(batches):
            with torch._dynamo.config.patch(error_on_recompile=number > 0):
                compiled(net, *given).backward()
            optimizer.step()
            optimizer.zero_grad()
    finally:
        if guard is not None:
            guard.close()
            assert guard.findings == []
        torch.compiler.reset()
    found = sum(counters["graph_break"].values()), counters["stats"]["unique_graphs"]
    return Compiled(*found, net.weight.detach().clone(), 0 if guard is None else guard.guard.calls)


@pytest.mark.parametrize("name", LOSSES)
def test_no_graph_break_and_no_recompilation_is_added(name: str) -> None:
    batches = [batch(step) for step in range(STEPS)]
    plain, guarded = trained(LOSSES[name], None, batches), trained(LOSSES[name], SHORT, batches)
    assert plain.graphs > 1  # it was compiled, around the breaks that torch itself has at each loss
    assert (guarded.breaks, guarded.graphs) == (plain.breaks, plain.graphs)
    assert guarded.calls == 4 * STEPS
    assert torch.equal(guarded.weights, plain.weights)


def test_twin_a_recompilation_would_be_seen() -> None:
    with pytest.raises(RecompileError):
        trained(F.ctc_loss, {}, [batch(0), batch(1, utterances=4)])


def test_twin_a_graph_break_would_be_seen() -> None:
    def with_a_break(*call: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return F.ctc_loss(*call)

    batches = [batch(step) for step in range(2)]
    assert trained(with_a_break, {}, batches).breaks > trained(F.ctc_loss, {}, batches).breaks
