"""The gradient that torch's CTC loss returns, measured beside the run and without a trace in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ctcguard import watch
from ctcguard_integrations.torch_posterior import wrong_gradient

CALL: dict[str, Any] = {
    "targets": torch.tensor([[1, 2, 2], [4, 3, 1]]),
    "input_lengths": torch.tensor([20, 13]),
    "target_lengths": torch.tensor([3, 2]),
}


def scores(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(20, 2, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


def losses(log_probs: torch.Tensor, **options: Any) -> torch.Tensor:
    return torch.nn.functional.ctc_loss(log_probs, **{**CALL, **options}, reduction="none")


def share(log_probs: torch.Tensor, **options: Any) -> float:
    found = wrong_gradient(losses(log_probs, **options), options.get("input_lengths", CALL["input_lengths"]))
    assert found is not None
    return float(found)


def test_by_hand() -> None:
    """The gradient of sum(exp) over valid frames is what is added."""
    x = scores()
    sum_of_all = sum((x.log_softmax(-1) / 2)[:length, i].exp().sum() for i, length in enumerate((20, 13)))
    (added,) = torch.autograd.grad(sum_of_all, x)
    (returned,) = torch.autograd.grad(losses(x.log_softmax(-1) / 2).sum(), x)
    assert share(x.log_softmax(-1) / 2) == pytest.approx(float(added.norm() / (returned - added).norm()), rel=1e-5)
    assert share(x.log_softmax(-1)) < 1e-6


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.transpose(0, 1).log_softmax(-1).transpose(0, 1) / 2,
        lambda x: torch.mul(x.log_softmax(2), torch.full((20, 1, 1), 0.5)),
        lambda x: torch.mul(0.5, x.double().log_softmax(-1)),
        lambda x: x.reshape(40, 6).log_softmax(-1).reshape(20, 2, 6) / 2,
        lambda x: (x.softmax(-1).log() / 2).contiguous(),
        lambda x: torch.where(torch.tensor(True), x.log_softmax(-1) / 2, torch.zeros(())),
    ],
)
def test_on_every_road(make: Any) -> None:
    x = scores()
    assert share(make(x)) == pytest.approx(share(x.log_softmax(-1) / 2), rel=1e-5)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_in_half_precision(half: torch.dtype) -> None:
    x = scores()
    assert share((x.to(half).log_softmax(-1) / 2).float()) == pytest.approx(share(x.log_softmax(-1) / 2), rel=0.02)


def test_one_utterance_without_a_batch() -> None:
    x = scores()[:, 0].detach().requires_grad_()
    one = {"targets": torch.tensor([1, 2, 2]), "input_lengths": torch.tensor(20), "target_lengths": torch.tensor(3)}
    assert share(x.log_softmax(-1) / 2, **one) > 0.1
    assert share(x.log_softmax(-1), **one) < 1e-6


def test_hidden_infinities_teach_nothing_and_count_for_nothing() -> None:
    x = scores()
    short = {"input_lengths": torch.tensor([20, 1])}
    alone = {"input_lengths": torch.tensor([20, 0]), "target_lengths": torch.tensor([3, 0])}
    made = x.log_softmax(-1) / 2
    assert share(made, **short, zero_infinity=True) == pytest.approx(share(made, **alone), rel=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: x - x.logsumexp(-1, keepdim=True),
        lambda x: x.log_softmax(-1) + (0.1 * x).log_softmax(-1),
        lambda x: x.log_softmax(-1).tanh(),
        lambda x: x.detach().log_softmax(-1),
    ],
)
def test_nothing_where_the_road_is_not_known(make: Any) -> None:
    assert wrong_gradient(losses(make(scores())), CALL["input_lengths"]) is None


def test_no_hook_runs_and_nothing_is_left_behind() -> None:
    calls: list[str] = []
    x = scores()
    normal = x.log_softmax(-1)
    normal.register_hook(lambda gradient: calls.append("tensor"))
    made = normal / 2
    assert made.grad_fn is not None
    made.grad_fn.register_hook(lambda *gradients: calls.append("node"))
    found = losses(made)
    assert wrong_gradient(found, CALL["input_lengths"]) is not None
    assert calls == []
    assert x.grad is None
    found.sum().backward()
    assert calls == ["node", "tensor"]


def test_the_run_is_the_same_with_it() -> None:
    def train() -> list[torch.Tensor]:
        x = scores()
        optimizer = torch.optim.SGD([x], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = torch.nn.functional.ctc_loss(x.log_softmax(-1).clamp(min=-1.2), **CALL)
            loss.backward()
            optimizer.step()
        return [x.detach(), loss.detach()]

    alone = train()
    with watch(sinks=(), on_error="log", on_warning="log") as guard:
        guarded = train()
    assert [f.step for f in guard.findings if f.code == "CTC602"] == [0]
    assert all(torch.equal(a, b) for a, b in zip(alone, guarded, strict=True))


class NoReading(TorchDispatchMode):
    """Whatever would bring a value to the host raises."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        return func(*args, **kwargs or {})


def test_nothing_waits_for_the_device() -> None:
    found = losses(scores().log_softmax(-1) / 2)
    with NoReading():
        measured = wrong_gradient(found, CALL["input_lengths"])
        with pytest.raises(AssertionError):
            float(measured)  # type: ignore[arg-type]
