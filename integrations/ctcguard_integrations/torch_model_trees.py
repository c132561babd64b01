"""Nested dicts, lists and tuples: what models are called with and what they return."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence


def leaves(tree: Any) -> Iterator[Any]:
    """Whatever is no dict, list or tuple."""
    if not _is_container(tree):
        yield tree
    else:
        for item in tree.values() if isinstance(tree, Mapping) else tree:
            yield from leaves(item)


def tensors(tree: Any) -> Iterator[torch.Tensor]:
    """All tensors."""
    return (leaf for leaf in leaves(tree) if isinstance(leaf, torch.Tensor))


def lists(tree: Any) -> Iterator[list[Any]]:
    """All lists and tuples of plain items."""
    if isinstance(tree, Mapping):
        for item in tree.values():
            yield from lists(item)
    elif _is_container(tree):
        if not any(map(_is_container, tree)):
            yield list(tree)
        for item in tree:
            yield from lists(item)


def rebuilt(
    tree: Any, change: Callable[[Any], Any], order: Callable[[list[Any]], list[Any]] = lambda items: items
) -> Any:
    """The same tree with other leaves.

    Parameters
    ----------
    tree
        Nested dicts, lists and tuples, also named ones.
    change : callable
        Leaf to leaf.
    order : callable
        From the items of a list or tuple that holds leaves only to those of the new one.
    """
    if not _is_container(tree):
        return change(tree)
    if isinstance(tree, Mapping):
        made: Any = copy.copy(tree)
        for name, item in tree.items():
            made[name] = rebuilt(item, change, order)
        return made
    plain = list(tree) if any(map(_is_container, tree)) else order(list(tree))
    items = [rebuilt(item, change, order) for item in plain]
    return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)


def _is_container(tree: Any) -> bool:
    if isinstance(tree, Mapping):
        return True
    return type(tree) in (list, tuple) or (hasattr(tree, "_fields") and not isinstance(tree, PackedSequence))
