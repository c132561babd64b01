"""What leaves a traced CTC call: a packed array, and what is known of the call without running it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from ctcguard._array import HostArray
from ctcguard.call import CTCCall
from ctcguard.packing import Layout, listed, unpack
from ctcguard_integrations.jax_shards import readable_part


@dataclass(frozen=True, eq=False)
class Site:
    """What is known of a traced call without running it: the same for every run of the compiled step.

    Attributes
    ----------
    call : CTCCall
        With stand-ins for its arrays: shape and dtype, no values.
    brief : Layout
        What stands where in the first part of its packed array: contracts and losses.
    rest : Layout
        What stands behind it, and before the last number, which says whether the rest was measured in that run.
    devices : int
        How many run it side by side, each with its part of the batch: those of `jax.pmap` and `jax.shard_map`.
    """

    call: CTCCall
    brief: Layout
    rest: Layout
    devices: int = 1

    @property
    def batch(self) -> int:
        """Utterances of one device."""
        return self.brief.batch

    def passing(self, packed: HostArray) -> dict[str, Any] | None:
        """What was measured in short, as `ctcguard.sound.glimpse` has it; None where the rest was measured too."""
        return None if packed[-1] else listed(packed[: self.brief.size], self.brief) | self._facts

    def unpacked(self, packed: HostArray) -> dict[str, Any]:
        """All that was measured, by name."""
        size = self.brief.size
        rest = unpack(packed[size:-1], self.rest) if packed[-1] else {}
        return unpack(packed[:size], self.brief) | rest

    @cached_property
    def _facts(self) -> dict[str, Any]:
        call = self.call
        sizes = {"batch": call.batch, "frames": call.frames, "classes": call.classes}
        targets = {"label_room": int(call.targets.shape[-1]), "concatenated": call.concatenated}
        return {**sizes, "blank": call.blank, **targets}

    def with_labels(self, targets: Any, target_lengths: Any, utterance_ids: tuple[str, ...]) -> CTCCall:
        """The call with the labels that it had in one run and the names of its utterances."""
        return replace(self.call, targets=targets, target_lengths=target_lengths, utterance_ids=utterance_ids)


@dataclass(frozen=True, eq=False)
class OnHost:
    """An array of JAX that is read when it is asked for values, by numpy.

    An operation of JAX would be a program of its own, and refused under a mesh whose shardings are part of the types.

    Attributes
    ----------
    array : array
        The whole.
    device : tuple of int
        Which part of it this is: that of one device of a pmap, or all.
    """

    array: Any
    device: tuple[int, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the part."""
        return tuple(self.array.shape[len(self.device) :])

    @property
    def dtype(self) -> Any:
        """Of the values."""
        return self.array.dtype

    @property
    def is_whole(self) -> bool:
        """Whether all values can be read here: not donated to a later program, not in part in other processes."""
        array = self.array
        if not isinstance(array, jax.Array):
            return True
        return not array.is_deleted() and (array.is_fully_addressable or array.is_fully_replicated)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, np.dtype[Any]]:
        """The values; this waits for the device."""
        return np.asarray(readable_part(self.array)[self.device], dtype=dtype)

    def __getitem__(self, index: Any) -> Any:
        """Some of the values."""
        return np.asarray(self)[index]

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        """They are numpy's."""
        return np


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Measured:
    """A measured call: arrays that may be traced, and its site, which JAX keeps with the compiled step.

    Attributes
    ----------
    packed : array, (length,)
        What `ctcguard.probes.measure` returns.
    targets, target_lengths : array, (batch, labels) and (batch,)
        Read only when a rule has fired.
    site : Site
        Static.
    scores : array, (batch, time, classes), or None
        Read only when the call is recorded; None when they are too large for that.
    """

    packed: Any
    targets: Any
    target_lengths: Any
    site: Site
    scores: Any = None

    def held(self, device: tuple[int, ...]) -> Any:
        """The scores, of one device of a pmap; empty where they cannot be read here."""
        scores = None if self.scores is None else OnHost(self.scores, device)
        gone = scores is None or not scores.is_whole
        return np.zeros((self.site.batch, 0, 0), np.float32) if gone else scores

    def tree_flatten(self) -> tuple[tuple[Any, ...], Site]:
        """For JAX."""
        return (self.packed, self.targets, self.target_lengths, self.scores), self.site

    @classmethod
    def tree_unflatten(cls, site: Site, arrays: tuple[Any, ...]) -> Measured:
        """For JAX."""
        packed, targets, target_lengths, scores = arrays
        return cls(packed, targets, target_lengths, site, scores)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Packed:
    """A packed array whose layouts outlive the trace.

    Attributes
    ----------
    array
        Both parts, and whether the second was measured.
    brief, rest
        As in `Site`.
    """

    array: Any
    brief: Layout
    rest: Layout

    def tree_flatten(self) -> tuple[tuple[Any], tuple[Layout, Layout]]:
        """For JAX."""
        return (self.array,), (self.brief, self.rest)

    @classmethod
    def tree_unflatten(cls, layouts: tuple[Layout, Layout], arrays: tuple[Any]) -> Packed:
        """For JAX."""
        return cls(arrays[0], *layouts)
