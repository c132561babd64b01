"""Reads off a traced program how logits were made: what the tracer itself remembers, at trace time only.

JAX has no public way to ask a traced value for the operation that made it; the two attributes used (``parent`` of a
tracer, ``in_tracers`` of an equation) are looked for, and without them nothing is known.
"""

from __future__ import annotations

from math import prod
from typing import Any

from jax.core import Tracer

from ctcguard.provenance import UNKNOWN, Provenance, Step

LONGEST = 32
OPS = {
    "dot_general": "linear", "conv_general_dilated": "convolution", "reshape": "view", "transpose": "permute",
    "convert_element_type": "cast", "broadcast_in_dim": "expand", "squeeze": "squeeze", "sub": "subtract",
    "mul": "multiply", "div": "divide", "min": "clamp", "max": "clamp", "select_n": "where", "slice": "slice",
    "dynamic_slice": "slice", "gather": "index", "concatenate": "cat", "stop_gradient": "detach",
}  # fmt: skip
HEADS = ("linear", "convolution")
SPREAD = ("broadcast_in_dim", "reshape", "log", "abs", "add")
"""What stands between a sum over an axis and its use: jax.nn.logsumexp has all of them."""


def provenance(logits: Any) -> Provenance:
    """Walk from the logits back to the layer that made them.

    Parameters
    ----------
    logits : jax.Array or traced array, (batch, time, classes)
        What the loss was given; the class axis is the last.

    Returns
    -------
    Provenance
        Empty outside of a trace. It ends where the trace does: at the arguments of an inner `jax.jit`, `jax.checkpoint`
        or `jax.lax.scan`.
    """
    value = _traced(logits)
    if value is None:
        return UNKNOWN
    class_axis: int | None = value.aval.ndim - 1
    steps: list[Step] = []
    while value is not None and value.parent is not None and len(steps) < LONGEST:
        op, axis, before = _operation(value)
        shape, dtype = tuple(value.aval.shape), str(value.aval.dtype)
        steps.append(Step(op, axis, class_axis if axis is not None else None, shape, dtype))
        if op in HEADS:
            return Provenance(tuple(reversed(steps)), reaches_head=True)
        class_axis = _class_axis_before(value, class_axis, before)
        value = before
    return Provenance(tuple(reversed(steps)))


def _traced(value: Any) -> Any:
    """The value in the program that is recorded, under the gradients and maps around it; None when there is none."""
    while isinstance(value, Tracer) and not hasattr(value, "parent"):
        value = getattr(value, "primal", None) if hasattr(value, "primal") else getattr(value, "val", None)
    return value if isinstance(value, Tracer) and hasattr(value.parent, "in_tracers") else None


def _operation(value: Any) -> tuple[str, int | None, Any]:
    """Name, axis of a softmax, and the value that it was applied to."""
    made = value.parent
    primitive, inputs = made.primitive.name, made.in_tracers
    if primitive == "jit" and made.params.get("name") in ("softmax", "_softmax", "log_softmax"):
        return str(made.params["name"]).lstrip("_"), _axis_inside(made.params["jaxpr"]), _main(inputs)
    if primitive in ("div", "sub") and len(inputs) == 2:
        total = _reduction(inputs[1])
        if total is not None:
            exponents = total.in_tracers[0]
            below = exponents.parent.in_tracers[0]
            scores = _unshifted(below)
            if primitive == "div" and inputs[0] is exponents:
                return "softmax", _only(total.params["axes"]), scores
            if primitive == "sub" and (inputs[0] is below or inputs[0] is scores):
                return "log_softmax", _only(total.params["axes"]), scores
    return _name(made), None, _main(inputs)


def _name(made: Any) -> str:
    """Our name of an operation; for a function that JAX keeps whole, its own."""
    primitive, params = str(made.primitive.name), made.params
    if primitive == "jit":
        return str(params.get("name", primitive))
    if primitive == "custom_jvp_call":
        return str(params["call_jaxpr"].jaxpr.debug_info.func_name)
    return OPS.get(primitive, primitive)


def _reduction(value: Any) -> Any:
    """The sum over an axis that this is, spread again, with or without a logarithm; None for anything else."""
    while isinstance(value, Tracer) and getattr(value, "parent", None) is not None:
        made = value.parent
        if made.primitive.name == "reduce_sum":
            inside = made.in_tracers[0].parent
            return made if inside is not None and inside.primitive.name == "exp" else None
        if made.primitive.name not in SPREAD:
            return None
        value = made.in_tracers[0]
    return None


def _unshifted(value: Any) -> Any:
    """What the largest score was taken from before the exponential."""
    made = value.parent
    return made.in_tracers[0] if made is not None and made.primitive.name == "sub" else value


def _axis_inside(closed: Any) -> int | None:
    sums = [equation for equation in closed.jaxpr.eqns if equation.primitive.name == "reduce_sum"]
    return _only(sums[0].params["axes"]) if sums else None


def _only(axes: Any) -> int | None:
    return int(axes[0]) if len(axes) == 1 else None


def _main(inputs: Any) -> Any:
    """The largest of the inputs: the others are weights, biases and constants."""
    traced: list[Any] = [value for value in inputs if isinstance(value, Tracer) and hasattr(value, "parent")]
    return max(traced, key=lambda value: (value.parent is not None, value.aval.size), default=None)


def _class_axis_before(value: Any, axis: int | None, before: Any) -> int | None:
    """Where the class axis stood in the input of a step."""
    if axis is None or before is None:
        return None
    primitive, shape, source = value.parent.primitive.name, value.aval.shape, before.aval.shape
    if primitive == "transpose":
        return int(value.parent.params["permutation"][axis])
    if shape == source:
        return axis
    if primitive in ("reshape", "squeeze"):
        size, offset = shape[axis], prod(shape[:axis])
        same = [i for i, length in enumerate(source) if length == size and prod(source[:i]) == offset]
        return same[0] if same else None
    return None
