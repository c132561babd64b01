"""What a PyTorch program does, seen from outside: steps, losses, models, optimizers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook


class TorchSteps:
    """Counts optimizer steps; several optimizers after one backward pass are one step."""

    def __init__(self) -> None:
        self.taken = 0
        self._stepped = False

    @contextmanager
    def counting(self) -> Iterator[None]:
        """While the program runs."""

        def stepped(*_: Any) -> None:
            self.taken += not self._stepped
            self._stepped = True

        def backward(*_: Any) -> None:
            self._stepped = False

        hook = register_optimizer_step_post_hook(stepped)
        with losses(backward):
            yield
        hook.remove()


@contextmanager
def losses(seen: Callable[[torch.Tensor], None]) -> Iterator[None]:
    """Tell of every tensor whose ``backward`` is called, before it is."""
    original = torch.Tensor.backward

    @functools.wraps(original)
    def backward(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen(self)
        return original(self, *args, **kwargs)

    with mock.patch.object(torch.Tensor, "backward", backward):
        yield


@contextmanager
def models(seen: Callable[[nn.Module], None]) -> Iterator[None]:
    """Tell of every module with parameters that is called by no other module, before each call: the user's models."""
    original = nn.Module.__call__
    depth = 0

    def call(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        if not depth and next(self.parameters(), None) is not None:
            seen(self)
        depth += 1
        try:
            return original(self, *args, **kwargs)
        finally:
            depth -= 1

    with mock.patch.object(nn.Module, "__call__", call):
        yield


@contextmanager
def training(seen: Callable[[nn.Module, torch.optim.Optimizer], None]) -> Iterator[None]:
    """Tell, once each, of the models that an optimizer updates, before their first call with gradients."""
    optimizers: list[torch.optim.Optimizer] = []
    known: set[int] = set()
    original = torch.optim.Optimizer.__init__

    def init(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        optimizers.append(self)

    def called(model: nn.Module) -> None:
        if id(model) in known or not torch.is_grad_enabled():
            return
        own = {id(parameter) for parameter in model.parameters()}
        for optimizer in reversed(optimizers):
            if own & {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}:
                known.add(id(model))
                seen(model, optimizer)
                return

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.optim.Optimizer, "__init__", init))
        stack.enter_context(models(called))
        yield
