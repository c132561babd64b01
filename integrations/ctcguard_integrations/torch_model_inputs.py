"""What a model was called with, made again with other utterances in its rows or with more padding."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any

import numpy as np
import torch

from ctcguard._array import HostArray
from ctcguard_integrations.torch_model_trees import leaves, lists, rebuilt, tensors

PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, np.generic, torch.dtype, torch.device, torch.Size)
"""Arguments that say nothing of a single utterance, but in a list of as many as there are utterances."""
COARSEST = 64
"""No model asks for widths that are multiples of more than this."""


class UnsuitableError(Exception):
    """The call cannot be made again in the form that is wanted; the message says why."""


class Inputs:
    """The arguments of one call of a model.

    Parameters
    ----------
    given : (tuple, dict)
        Positional and keyword arguments.
    batch, frames : int
        Of the CTC call that followed.
    valid_frames : array of int, (batch,)
        Its input lengths.

    Raises
    ------
    UnsuitableError
        If it is not known which axis is the batch, or where else there may be something of an utterance.

    Attributes
    ----------
    width : int
        Length of the time axis of the features.
    told : bool
        Whether the model is told how long the utterances are.
    """

    def __init__(self, given: Any, batch: int, frames: int, valid_frames: HostArray) -> None:
        self._given, self._batch = given, batch
        self._shortest = int(valid_frames.argmin()) if len({*valid_frames.tolist()}) > 1 else None
        for leaf in leaves(given):
            if not isinstance(leaf, (torch.Tensor, np.ndarray, *PLAIN)) or getattr(leaf, "is_nested", False):
                raise UnsuitableError(f"it was given a {type(leaf).__name__}, and what in it is whose is not known")
        self._features = self._find_features()
        self._batch_axis = list(self._features.shape).index(batch)
        masks, lengths = self._masks(), self._lengths()
        self._fractions = {id(row) for row in self._rows() if _equal(row, valid_frames / frames)}
        self._time_axis = self._find_time_axis([*masks, *lengths], frames)
        self.width = int(self._features.shape[self._time_axis])
        self.told = bool(masks or self._fractions or {self.width, frames} & {*lengths})

    @property
    def knows_padding(self) -> bool:
        """Whether padding is something that this model meets: it is told lengths, or the utterances differ in them."""
        return self.told or self._shortest is not None

    def rows(self, sources: Sequence[int], extra: int = 0) -> Any:
        """The arguments with utterance ``sources[i]`` in row i, padded by ``extra`` more; tensors are copies.

        Raises
        ------
        UnsuitableError
            When it is not known how one of them marks padding.
        """

        def change(leaf: Any) -> Any:
            if isinstance(leaf, torch.Tensor):
                return self._tensor(leaf, list(sources), extra)
            own = isinstance(leaf, np.ndarray) and leaf.shape[:1] == (self._batch,)
            return leaf[list(sources)] if own else leaf

        def order(items: list[Any]) -> list[Any]:
            return [items[source] for source in sources] if self._each(items) else items

        return rebuilt(self._given, change, order)

    def extra(self, frames: int, wanted: int) -> int:
        """How much to append to the features for ``wanted`` frames more than the ``frames`` that there are."""
        least = -(-wanted * self.width // frames)
        if self._fractions:
            return int(self.width * (2 ** (1 + least // self.width).bit_length() - 1))  # powers of 2 round nothing
        step = min(COARSEST, self.width & -self.width)
        return -(-least // step) * step

    def _find_features(self) -> torch.Tensor:
        wide = [t for t in tensors(self._given) if t.is_floating_point() and t.ndim > 1 and self._batch in t.shape[:2]]
        if not wide:
            raise UnsuitableError(f"it was given no features with a batch axis of {self._batch}")
        found = max(wide, key=lambda tensor: (not _two_valued(tensor), tensor.numel()))  # masks may be larger
        if found.ndim < 4 and self._batch > 1 and found.shape[0] == found.shape[1]:
            raise UnsuitableError(f"batch and time cannot be told apart in features of shape {tuple(found.shape)}")
        return found

    def _each(self, items: list[Any]) -> bool:
        """Whether a list has an item for each utterance."""
        whole = any(self._axis(item) is not None for item in items if isinstance(item, torch.Tensor))
        return len(items) == self._batch and not whole

    def _masks(self) -> list[int]:
        """Lengths of the time axis of what looks like masks, (batch, time)."""
        flat = [t for t in tensors(self._given) if t.ndim == 2 and t is not self._features and _two_valued(t)]
        return [tensor.shape[1 - axis] for tensor in flat if (axis := self._axis(tensor)) is not None]

    def _rows(self) -> list[torch.Tensor]:
        """Tensors with one number for each utterance."""
        return [tensor for tensor in tensors(self._given) if tensor.shape == (self._batch,)]

    def _lengths(self) -> list[int]:
        """The longest of everything that looks like lengths."""
        whole = [int(row.max()) for row in self._rows() if not row.is_floating_point()]
        listed = [items for items in lists(self._given) if self._each(items) and {*map(type, items)} == {int}]
        return [*whole, *map(max, listed)]

    def _find_time_axis(self, told: list[int], frames: int) -> int:
        """The axis that masks or lengths speak of, else one that is as long as there are frames, else the longest."""
        sizes = self._features.shape
        axes = [axis for axis in range(len(sizes)) if axis != self._batch_axis]
        spoken_of = [axis for axis in axes if sizes[axis] in told]
        as_long = [axis for axis in axes if sizes[axis] == frames]
        return max(spoken_of or as_long or axes, key=lambda axis: sizes[axis])

    def _axis(self, tensor: torch.Tensor) -> int | None:
        """The batch axis of any tensor: where that of the features is, else the other one of the first two."""
        order = (self._batch_axis, 1 - self._batch_axis)
        return next((axis for axis in order if axis < tensor.ndim and tensor.shape[axis] == self._batch), None)

    def _tensor(self, tensor: torch.Tensor, sources: list[int], extra: int) -> torch.Tensor:
        axis = self._axis(tensor)
        if axis is None:
            return tensor.detach().clone()
        rows = tensor.detach().index_select(axis, torch.tensor(sources, device=tensor.device))
        if id(tensor) in self._fractions and extra and self._shortest is None:
            raise UnsuitableError("it was given numbers of 1, which may be lengths or not")
        if id(tensor) in self._fractions:
            return rows * (self.width / (self.width + extra))
        return self._longer(tensor, rows, axis, extra) if extra and tensor.ndim > 1 else rows

    def _longer(self, tensor: torch.Tensor, rows: torch.Tensor, axis: int, extra: int) -> torch.Tensor:
        features = tensor is self._features or (tensor.ndim == self._features.ndim and not _two_valued(tensor))
        times = [other for other in range(tensor.ndim) if other != axis and tensor.shape[other] == self.width]
        times = [self._time_axis] if features and self._time_axis in times else times
        if not times:
            return rows
        if len(times) > 1:
            raise UnsuitableError(f"it was given a mask of shape {tuple(tensor.shape)}, which cannot be made longer")
        front, rows = (values.movedim((axis, times[0]), (0, 1)) for values in (tensor.detach(), rows))
        end = self._silence(front) if features else _end(front)
        longer = torch.cat((rows, end.expand(len(rows), extra, *front.shape[2:])), 1)
        return longer.movedim((0, 1), (axis, times[0])).contiguous()

    def _silence(self, front: torch.Tensor) -> torch.Tensor:
        """A frame of padding: the last one of the shortest utterance, or zeros when nothing is padded."""
        return torch.zeros_like(front[0, 0]) if self._shortest is None else front[self._shortest, -1]


def _equal(row: torch.Tensor, fractions: HostArray) -> bool:
    """Whether these are lengths as fractions of the time axis: about those that the loss was given."""
    return row.is_floating_point() and np.allclose(row.detach().cpu().double().numpy(), fractions, atol=0.1)


def _two_valued(tensor: torch.Tensor) -> bool:
    """Whether it looks like a mask."""
    return tensor.dtype == torch.bool or bool(((tensor == tensor.min()) | (tensor == tensor.max())).all())


def _end(front: torch.Tensor) -> torch.Tensor:
    """What marks padding in a mask, (batch, time, …): the end of a row that does not end as it begins."""
    ends = (front[:, 0] != front[:, -1]).reshape(len(front), -1).any(1)
    if ends.any():
        return front[int(ends.int().argmax()), -1]
    whole = front == 1 if front.is_floating_point() else (front == 0) | (front == 1)
    if not whole.all():  # a mask of zeros may be one to multiply with or one to add
        raise UnsuitableError("it was given a mask that does not show how padding is marked")
    return (front[0, -1] == 0).to(front.dtype)
