"""Passes through a user's model that leave no trace: what a forward pass may change is put back bit for bit."""

from __future__ import annotations

import random
import sys
import threading
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

Restore = Callable[[], object]
CONTAINERS = (dict, OrderedDict, list, set, deque)


class Kept:
    """What modules hold besides their weights, as it was when they were added.

    Buffers and attributes are put back, tensors among them with their values; of lists, dicts and sets that are
    attributes the elements are, but not what lies inside of these. Weights are not copied: they may fill half of the
    memory, and a forward pass does not change them.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._restores: list[Restore] = []

    def add(self, module: torch.nn.Module) -> None:
        """Remember a module as it is now, unless it is known; its children are not looked at."""
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        attributes, training = dict(vars(module)), module.training
        flags = [(weight, weight.requires_grad) for weight in module._parameters.values() if weight is not None]
        contents = [restore for value in attributes.values() for restore in _contents(value)]

        def restore() -> None:
            _refill(vars(module), attributes)
            for put_back in contents:
                put_back()
            if module.training is not training:  # of a scripted module it is no attribute
                module.training = training
            for weight, flag in flags:
                weight.requires_grad_(flag)

        self._restores.append(restore)

    def restore(self) -> None:
        """Put everything back."""
        for restore in self._restores:
            restore()


def _contents(value: Any) -> Iterator[Restore]:
    """What puts back the content of an attribute, where it has one that can change in place."""
    if type(value) in CONTAINERS:
        yield _container(value)
        inside = value.values() if isinstance(value, dict) else value
        yield from (_tensor(item) for item in inside if _may_change(item))
    elif _may_change(value):
        yield _tensor(value)
    else:
        yield from _generator(value)


def _may_change(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter)


def _tensor(tensor: torch.Tensor) -> Restore:
    copy = tensor.detach().clone()

    def restore() -> None:
        if not torch.equal(tensor.detach(), copy):
            tensor.data.copy_(copy)  # not the tensor itself: what autograd saved of it would count as changed

    return restore


def _container(container: Any) -> Restore:
    copy = container.copy()

    def restore() -> None:
        if isinstance(container, dict):
            _refill(container, copy)
        elif list(map(id, container)) != list(map(id, copy)):
            container.clear()
            (container.update if isinstance(container, set) else container.extend)(copy)

    return restore


def _refill(current: dict[Any, Any], wanted: dict[Any, Any]) -> None:
    if list(current) != list(wanted):
        current.clear()
    for name, value in wanted.items():
        if name not in current or current[name] is not value:
            current[name] = value


def _generator(value: Any) -> Iterator[Restore]:
    """Random numbers that a module draws from a source of its own."""
    numpy = sys.modules.get("numpy")
    if isinstance(value, torch.Generator):
        state = value.get_state()
        yield lambda: value.set_state(state)
    elif isinstance(value, random.Random):
        drawn = value.getstate()
        yield lambda: value.setstate(drawn)
    elif numpy is not None and isinstance(value, numpy.random.RandomState):
        legacy = value.get_state()
        yield lambda: value.set_state(legacy)
    elif numpy is not None and isinstance(value, numpy.random.Generator):
        bits = value.bit_generator.state
        yield lambda: setattr(value.bit_generator, "state", bits)


@contextmanager
def _same_random_numbers(devices: list[torch.device]) -> Iterator[None]:
    """The random numbers of Python, numpy and torch go on afterwards as if none had been drawn."""
    numpy, python = sys.modules.get("numpy"), random.getstate()
    legacy = None if numpy is None else numpy.random.get_state()
    others = [device for device in devices if device.type != "cpu"]
    try:
        with torch.random.fork_rng(others, device_type=others[0].type if others else None):
            yield
    finally:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(legacy)


@contextmanager
def _full_precision(kind: str) -> Iterator[None]:
    """No autocast in this thread, nor where the model itself switches it on: rounding would hide what is looked for."""
    here, begin, end = threading.get_ident(), torch.autocast.__enter__, torch.autocast.__exit__

    def enter(self: torch.autocast) -> Any:
        return self if threading.get_ident() == here else begin(self)  # type: ignore[no-untyped-call]

    def leave(self: torch.autocast, *error: Any) -> Any:
        return None if threading.get_ident() == here else end(self, *error)

    with torch.autocast(kind, enabled=False, cache_enabled=False):
        torch.autocast.__enter__, torch.autocast.__exit__ = enter, leave  # type: ignore[method-assign]
        try:
            yield
        finally:
            torch.autocast.__enter__, torch.autocast.__exit__ = begin, end  # type: ignore[method-assign]


@contextmanager
def aside(model: torch.nn.Module) -> Iterator[Kept]:
    """The model in eval mode: no gradient, no autocast, nothing compiled, no warning; afterwards all is as it was.

    The flags are set one by one: ``model.eval()`` may be the user's own and do more (merge adapters into weights).

    Parameters
    ----------
    model : torch.nn.Module
        In any state.

    Yields
    ------
    Kept
        For modules that are called but not part of the model.
    """
    kept, modules = Kept(), list(model.modules())
    devices = sorted({weight.device for weight in model.parameters()}, key=lambda device: device.type == "cpu")
    with ExitStack() as stack:
        stack.enter_context(_same_random_numbers(devices))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_full_precision(devices[0].type))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.callback(kept.restore)
        for module in modules:
            kept.add(module)
        for module in modules:
            module.training = False
        yield kept
