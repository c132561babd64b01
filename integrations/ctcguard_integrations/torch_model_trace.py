"""What each module was given and returned in one pass, for a row or two of the batch, to find where two passes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from ctcguard_integrations.torch_model_calls import Around, install, remove
from ctcguard_integrations.torch_model_graph import Swap
from ctcguard_integrations.torch_model_state import Kept
from ctcguard_integrations.torch_model_trees import leaves, tensors

MOST = 2**26
"""Values kept of one pass; modules after that are not looked at."""
GUARD = 2
"""Positions before the end of an utterance that are not compared where time axes differ: windows overlap it."""


@dataclass(slots=True)
class Event:
    """One call of a module: its name and class, the one that called it, and rows of tensors, (rows, …)."""

    module: torch.nn.Module
    place: str
    parent: str
    batch_axis: int | None
    given: list[torch.Tensor]
    made: list[torch.Tensor]


class Trace:
    """Looks at one pass; to be used as a context.

    Parameters
    ----------
    model : torch.nn.Module
        Its modules are called by their names.
    batch : int
        The axis of that size, the first or second one, holds the rows.
    rows : sequence of int
        Those that are kept.
    kept : Kept
        Is told of modules that are not part of the model, before they run.

    Attributes
    ----------
    events : list of Event
        In the order in which the modules returned.
    training : list of str
        Modules that were called with ``training`` set: they are not part of the model, or it was set in between.
    unpacked : str
        A bidirectional RNN that was given a plain tensor.
    swap : Swap or None
        A module was given a view with batch and time swapped in size only; inputs have no graph that would show it.
    dtypes : set of torch.dtype
        Those of autocast, where the model itself switched it on.
    """

    def __init__(self, model: torch.nn.Module, batch: int, rows: Sequence[int], kept: Kept) -> None:
        self.events: list[Event] = []
        self.training: list[str] = []
        self.unpacked = ""
        self.swap: Swap | None = None
        self.dtypes: set[torch.dtype] = set()
        self._names = {id(module): name or "the model" for name, module in model.named_modules()}
        self._batch, self._rows, self._kept = batch, list(rows), kept
        self._room = MOST
        self._stack: list[str] = []

    def __enter__(self) -> Trace:
        install(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        remove(self._seen)

    @property
    def running(self) -> str:
        """The module that is being called."""
        return self._stack[-1] if self._stack else ""

    def _seen(self, original: Around, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        self._kept.add(module)
        given, parent = _plain((args, kwargs)), self.running
        place = f"{self._names.get(id(module), 'a module outside of the model')} ({type(module).__name__})"
        self._note(module, place, args, given)
        rows, axis = self._rows_of(given), self._axis(given[0]) if given else None
        self._stack.append(place)
        try:
            result = original(module, *args, **kwargs)
        finally:
            self._stack.pop()
        self.events.append(Event(module, place, parent, axis, rows, self._rows_of(_plain(result))))
        return result

    def _note(self, module: torch.nn.Module, place: str, args: Any, given: list[torch.Tensor]) -> None:
        if module.training:
            self.training.append(place)
        packed = any(isinstance(leaf, PackedSequence) for leaf in leaves(args))
        if isinstance(module, torch.nn.RNNBase) and module.bidirectional and not packed:
            self.unpacked = self.unpacked or place
        self.swap = self.swap or next(filter(None, map(_swapped, given)), None)
        kinds = {tensor.device.type for tensor in given}
        self.dtypes |= {torch.get_autocast_dtype(kind) for kind in kinds if torch.is_autocast_enabled(kind)}

    def _axis(self, tensor: torch.Tensor) -> int | None:
        return next((axis for axis in range(min(2, tensor.ndim)) if tensor.shape[axis] == self._batch), None)

    def _rows_of(self, found: list[torch.Tensor]) -> list[torch.Tensor]:
        """The rows of each tensor, in front; of one without a batch axis none."""
        kept = []
        for tensor in found:
            axis = self._axis(tensor) if tensor.is_floating_point() and self._room > 0 else None
            index = torch.tensor(self._rows if axis is not None else [], dtype=torch.long, device=tensor.device)
            kept.append(tensor.index_select(axis or 0, index).movedim(axis or 0, 0))
            self._room -= kept[-1].numel()
        return kept


def parting(before: Trace, after: Trace, fraction: float, tolerance: float) -> tuple[Event, bool | None] | None:
    """Where two passes part for an utterance that is the only row of the first one and all rows of the second.

    Parameters
    ----------
    before, after : Trace
        The passes.
    fraction : float
        How much of the time axis of the first one is valid, in [0, 1]: so much is compared where the axes differ.
    tolerance : float
        Of the largest value of a tensor; more is no rounding.

    Returns
    -------
    (Event, bool or None) or None
        The first module with another result, and whether it was given the same; if not, they part in the code before
        it. None where that cannot be told.
    """
    for first, second in zip(before.events, after.events, strict=False):
        if first.place != second.place:
            return None
        if _same(first.made, second.made, fraction, tolerance) is False:
            return first, _same(first.given, second.given, fraction, tolerance)
    return None


def _same(before: list[torch.Tensor], after: list[torch.Tensor], fraction: float, tolerance: float) -> bool | None:
    """Whether all that can be compared is the same; None when there is nothing."""
    same = []
    for first, second in zip(before, after, strict=False):
        if first.numel() and second.numel() and first.ndim == second.ndim:
            sizes = zip(first.shape[1:], second.shape[1:], strict=True)
            valid = [slice(a if a == b else max(1, int(min(a * fraction, b)) - GUARD)) for a, b in sizes]
            wanted, found = first[(slice(None), *valid)].float(), second[(slice(None), *valid)].float()
            same.append(bool(((wanted - found).abs() <= tolerance * wanted.abs().max()).all()))
    return all(same) if same else None


def _swapped(tensor: torch.Tensor) -> Swap | None:
    """Whether a tensor is another one with the sizes of the first two axes swapped and all values where they were."""
    base = tensor._base
    if base is None or base.ndim < 3 or not (base.is_contiguous() and tensor.is_contiguous()):
        return None
    before, after = tuple(base.shape), tuple(tensor.shape)
    return Swap(before, after) if after == (before[1], before[0], *before[2:]) != before else None


def _plain(tree: Any) -> list[torch.Tensor]:
    """The tensors that have axes which can be cut."""
    return [tensor for tensor in tensors(tree) if tensor.ndim and not tensor.is_nested and not tensor.is_sparse]
