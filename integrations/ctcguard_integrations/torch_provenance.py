"""Reads off the autograd graph how log-probs were made: a few attribute reads, nothing is computed."""

from __future__ import annotations

import re
from math import prod
from typing import Any, NamedTuple
from weakref import ReferenceType, ref

import torch

from ctcguard.provenance import UNKNOWN, Provenance, Step

LONGEST = 32
OPS = {
    "LogSoftmax": "log_softmax", "Softmax": "softmax", "Log": "log", "Exp": "exp", "Transpose": "transpose",
    "Permute": "permute", "View": "view", "UnsafeView": "view", "ReshapeAlias": "view", "Alias": "view",
    "Squeeze": "squeeze", "Unsqueeze": "unsqueeze", "Expand": "expand", "Clone": "clone", "ToCopy": "cast",
    "Slice": "slice", "Select": "select", "Index": "index", "Cat": "cat", "Stack": "stack", "ConstantPadNd": "pad",
    "Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "Clamp": "clamp", "ClampMin": "clamp",
    "MaskedFill": "masked_fill", "Where": "where", "NativeDropout": "dropout", "Addmm": "linear", "Mm": "linear",
    "Bmm": "linear", "Linear": "linear", "Convolution": "convolution",
}  # fmt: skip
HEADS = ("linear", "convolution")
RESHAPES = ("view", "squeeze", "unsqueeze", "expand")
TURNS = (*RESHAPES, "transpose", "permute", "cast")


class Origin(NamedTuple):
    """Where log-probs come from.

    Attributes
    ----------
    provenance : Provenance
        Steps from the head to the loss.
    head : tuple of weak references to torch.nn.Parameter
        Weight and bias of the last layer, those that get a gradient.
    frozen : bool
        Whether the last layer was reached and none of its weights gets a gradient.
    hops : int
        Steps from the log-probs back to that layer.
    """

    provenance: Provenance = UNKNOWN
    head: tuple[ReferenceType[torch.Tensor], ...] = ()
    frozen: bool = False
    hops: int = 0


def origin(log_probs: torch.Tensor) -> Origin:
    """Walk from the log-probs back to the layer that made them.

    Parameters
    ----------
    log_probs : torch.Tensor, (time, batch, classes) or (time, classes)
        What the loss was given; the class axis is the last.

    Returns
    -------
    Origin
        Empty without a ``grad_fn`` (no_grad, detached) or behind a compiled function.
    """
    node: Any = log_probs.grad_fn
    class_axis: int | None = log_probs.ndim - 1
    steps: list[Step] = []
    while node is not None and len(steps) < LONGEST:
        op = op_of(node)
        if op is None:
            break
        following = _following(node)
        shape, dtype = _output(node)
        axis = _axis(node, shape) if op in ("softmax", "log_softmax") else None
        steps.append(Step(op, axis, class_axis if axis is not None else None, shape, dtype))
        if op in HEADS:
            head = tuple(ref(parameter) for parameter in _parameters(node))
            frozen = not head and sum(child is not None for child, _ in node.next_functions) < 2
            return Origin(Provenance(tuple(reversed(steps)), reaches_head=True), head, frozen, len(steps) - 1)
        class_axis = _before(node, op, class_axis, shape, following)
        node = following
    return Origin(Provenance(tuple(reversed(steps))))


def same_head(log_probs: torch.Tensor, known: Origin) -> bool:
    """Whether these log-probs come from the layer of an earlier walk: a few hops, for another model may be trained."""
    if not known.provenance.reaches_head:
        return True
    node: Any = log_probs.grad_fn
    for _ in range(known.hops):
        node = None if node is None else _following(node)
    return node is not None and list(map(id, (reference() for reference in known.head))) == list(
        map(id, _parameters(node))
    )


def _following(node: Any) -> Any:
    return next((child for child, _ in node.next_functions if child is not None), None)


def op_of(node: Any) -> str | None:
    """The framework-neutral name of what a node differentiates; None when it is not known."""
    matched = re.fullmatch(r"_?(\w+?)Backward\d*", node.name())
    return OPS.get(matched[1]) if matched else None


def _output(node: Any) -> tuple[tuple[int, ...], str]:
    metadata = node._input_metadata[0]
    return tuple(int(size) for size in metadata.shape), str(metadata.dtype).removeprefix("torch.")


def _axis(node: Any, shape: tuple[int, ...]) -> int:
    """The axis of a softmax; -1 is saved as 2⁶⁴ - 1."""
    saved = int(node._saved_dim)
    return saved if saved < 2**63 else saved - 2**64 + len(shape)


def _before(node: Any, op: str, axis: int | None, shape: tuple[int, ...], following: Any) -> int | None:
    """Where the class axis stood in the input of a step."""
    if axis is None or following is None:
        return None
    if op == "transpose":
        first, second = (_signed(saved, len(shape)) for saved in (node._saved_dim0, node._saved_dim1))
        return {first: second, second: first}.get(axis, axis)
    if op == "permute":
        return _signed(node._saved_dims[axis], len(shape))
    if op in RESHAPES and hasattr(following, "_input_metadata") and following._input_metadata:
        before, _ = _output(following)
        size, offset = shape[axis], prod(shape[:axis])
        same = [i for i, length in enumerate(before) if length == size and prod(before[:i]) == offset]
        return same[0] if same else None
    return axis


def _signed(saved: int, rank: int) -> int:
    axis = int(saved)
    axis = axis - 2**64 if axis >= 2**63 else axis
    return axis + rank if axis < 0 else axis


def _parameters(node: Any, depth: int = 6) -> list[torch.Tensor]:
    """Leaves right below the last layer: weight and bias, turned or cast (einsum: 5 times); not those of its input."""
    found = []
    for child, _ in node.next_functions:
        if child is None:
            continue
        if hasattr(child, "variable"):
            found.append(child.variable)
        elif depth and len(child.next_functions) == 1 and (child.name() == "TBackward0" or op_of(child) in TURNS):
            found += _parameters(child, depth - 1)
    return found
