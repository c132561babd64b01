"""What leaves a traced CTC call: a packed array, and what is known of the call without running it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax

from ctcguard.call import CTCCall
from ctcguard.probes import Layout


@dataclass(frozen=True, eq=False)
class Site:
    """What is known of a traced call without running it: the same for every run of the compiled step.

    Attributes
    ----------
    call : CTCCall
        With stand-ins for its arrays: shape and dtype, no values.
    layout : Layout
        What stands where in its packed array.
    """

    call: CTCCall
    layout: Layout

    def with_labels(self, targets: Any, target_lengths: Any, utterance_ids: tuple[str, ...]) -> CTCCall:
        """The call with the labels that it had in one run and the names of its utterances."""
        return replace(self.call, targets=targets, target_lengths=target_lengths, utterance_ids=utterance_ids)


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
    """

    packed: Any
    targets: Any
    target_lengths: Any
    site: Site

    def tree_flatten(self) -> tuple[tuple[Any, ...], Site]:
        """For JAX."""
        return (self.packed, self.targets, self.target_lengths), self.site

    @classmethod
    def tree_unflatten(cls, site: Site, arrays: tuple[Any, ...]) -> Measured:
        """For JAX."""
        packed, targets, target_lengths = arrays
        return cls(packed, targets, target_lengths, site)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Packed:
    """A packed array whose layout outlives the trace.

    Attributes
    ----------
    array, layout
        What `ctcguard.probes.measure` returns.
    """

    array: Any
    layout: Layout

    def tree_flatten(self) -> tuple[tuple[Any], Layout]:
        """For JAX."""
        return (self.array,), self.layout

    @classmethod
    def tree_unflatten(cls, layout: Layout, arrays: tuple[Any]) -> Packed:
        """For JAX."""
        return cls(arrays[0], layout)
