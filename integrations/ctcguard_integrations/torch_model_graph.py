"""What the autograd graph below the log-probs tells: which nodes made them, and views that mix utterances."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import torch

NODES = 100_000
"""Nodes looked at, more than any model has layers."""
VIEWS = ("View", "UnsafeView", "ReshapeAlias")


class Swap(NamedTuple):
    """A reshape that gives batch and time each other's size, and leaves the values where they are in memory."""

    before: tuple[int, ...]
    after: tuple[int, ...]


class Graph(NamedTuple):
    """The numbers of all nodes below the log-probs, and the first of the views that swap batch and time."""

    nodes: frozenset[int]
    swap: Swap | None


def graph_of(scores: torch.Tensor, batch: int) -> Graph:
    """Walk from the scores to all that they were made of: attribute reads, nothing is computed.

    Parameters
    ----------
    scores : torch.Tensor
        What the loss was given; without a graph, nothing is found.
    batch : int
        Utterances.
    """
    queue: deque[Any] = deque([] if scores.grad_fn is None else [scores.grad_fn])
    seen: set[int] = set()
    swap = None
    while queue and len(seen) < NODES:
        node = queue.popleft()
        number = node._sequence_nr()
        if number in seen:
            continue
        seen.add(number)
        swap = _swap(node, batch) or swap  # the last one found is the first one that was computed
        queue.extend(child for child, _ in node.next_functions if child is not None)
    return Graph(frozenset(seen), swap)


def _swap(node: Any, batch: int) -> Swap | None:
    if not _is_view(node):
        return None
    before, after = _sizes(node)
    if len(before) == 2 and len(after) > 2:
        before = _before_flattening(node, before) or before
    turned = len(before) > 2 and len(after) > 2 and before[1::-1] == after[:2]
    return Swap(before, after) if turned and batch in after[:2] and after[0] != after[1] else None


def _before_flattening(node: Any, flat: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape from which (batch × time, values) was made, one layer or so before."""
    for _ in range(8):
        node = next((child for child, _ in node.next_functions if child is not None), None)
        if node is None:
            return None
        if _is_view(node):
            before, after = _sizes(node)
            if after[0] == flat[0] and len(before) > 2:
                return before
    return None


def _is_view(node: Any) -> bool:
    return node.name().removesuffix("Backward0") in VIEWS


def _sizes(node: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes before and after a view."""
    return tuple(map(int, node._saved_self_sym_sizes)), tuple(map(int, node._input_metadata[0].shape))
