"""Which call of which module made the log-probs: outermost calls of modules are noted until that is known."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ctcguard_integrations.torch_model_trees import rebuilt, tensors

KEPT_CALLS = 8
"""Outermost calls whose inputs are kept until the loss is called: the parts of a model that has several."""
LOOKED_THROUGH = (DistributedDataParallel, DataParallel)
"""They talk to other processes or devices when they are called: what they wrap is called instead."""

Around = Callable[..., Any]
_arounds: list[tuple[int, Around]] = []
_original = torch.nn.Module.__call__


def _call(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Stands in for ``Module.__call__``. A function that is compiled as a whole sees through it."""
    if torch.compiler.is_compiling():
        return _original(self, *args, **kwargs)
    here = threading.get_ident()
    around = next((around for thread, around in reversed(_arounds) if thread == here), None)
    return _original(self, *args, **kwargs) if around is None else around(_original, self, args, kwargs)


def install(around: Around) -> None:
    """From now on every call of a module by this thread goes through ``around(original, module, args, kwargs)``.

    Torch's global hooks would do too, but the one before a call is not told of keywords, and compiled modules warn of
    them.
    """
    global _original
    if torch.nn.Module.__call__ is not _call:
        _original = torch.nn.Module.__call__
        torch.nn.Module.__call__ = _call  # type: ignore[method-assign]
    _arounds.append((threading.get_ident(), around))


def remove(around: Around) -> None:
    """Take one back; with the last one, torch is as it was before."""
    _arounds[:] = [(thread, kept) for thread, kept in _arounds if kept != around]
    if not _arounds and torch.nn.Module.__call__ is _call:
        torch.nn.Module.__call__ = _original  # type: ignore[method-assign]


@dataclass(slots=True)
class ModuleCall:
    """An outermost call of a module with weights.

    Attributes
    ----------
    module : weak reference to torch.nn.Module
        What was called.
    given : (tuple, dict)
        Its arguments, outside the graph. These are kept alive: many loops have dropped them when an optimizer steps.
    made : frozenset of int
        Numbers of the nodes of the graph that made what it returned.
    """

    module: ReferenceType[torch.nn.Module]
    given: Any
    made: frozenset[int] = frozenset()


class Calls:
    """Notes outermost module calls of one thread while it is open.

    Inside of such a call torch is as always, so that models are compiled as they would be without.

    Parameters
    ----------
    contained : callable
        Keeps faults of this class out of the training.
    """

    def __init__(self, contained: Callable[[str], AbstractContextManager[None]]) -> None:
        self.finished: deque[ModuleCall] = deque(maxlen=KEPT_CALLS)
        self.active: ModuleCall | None = None
        self._contained = contained
        self._open = True
        install(self._noted)

    def close(self) -> None:
        """Torch as it was before, and no input kept."""
        self._open = False
        self.finished.clear()
        remove(self._noted)

    def _noted(self, original: Around, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        inner = isinstance(module, LOOKED_THROUGH) or next(module.parameters(), None) is None
        if inner or self.active is not None:
            return original(module, *args, **kwargs)
        self.active = call = self._begun(module, args, kwargs)
        remove(self._noted)
        try:
            result = original(module, *args, **kwargs)
        finally:
            self.active = None
            if self._open:
                install(self._noted)
        if call is not None and self._open:
            self._ended(call, result)
        return result

    def _begun(self, module: torch.nn.Module, args: Any, kwargs: Any) -> ModuleCall | None:
        with self._contained("model calls"):
            return ModuleCall(ref(module), rebuilt((args, kwargs), _detached))
        return None

    def _ended(self, call: ModuleCall, result: Any) -> None:
        with self._contained("model calls"):
            nodes = [tensor.grad_fn for tensor in tensors(result) if tensor.grad_fn is not None]
            call.made = frozenset(node._sequence_nr() for node in nodes)
            self.finished.append(call)


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, torch.Tensor) else leaf
