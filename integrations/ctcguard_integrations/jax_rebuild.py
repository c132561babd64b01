"""Compiled steps built once more around their own function, so that what was measured leaves as further outputs."""

from __future__ import annotations

import copy
import functools
import types
from typing import Any

import jax
import numpy as np
from jax.experimental.layout import Format
from jax.sharding import PartitionSpec, Sharding

from ctcguard_integrations.jax_call import ALWAYS
from ctcguard_integrations.jax_recorder import Recorder
from ctcguard_integrations.jax_seam import Sheet, active

LOOK = "_ctcguard_look"
Step = Any
"""A callable, with what JAX and flax attach to it."""


class Rebuilt:
    """A compiled step with one more output, which goes to the recorder before the step's own are handed back.

    With ``takes_look`` it has one more argument too, by name: whether to look at scores in that run.
    """

    def __init__(self, original: Step, compiled: Step, recorder: Recorder, takes_look: bool) -> None:
        functools.update_wrapper(self, original, updated=())
        self._original, self._compiled, self._recorder, self._takes_look = original, compiled, recorder, takes_look
        self._looks: tuple[Any, ...] = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        look = self._recorder.looks(always=not self._takes_look)
        if self._takes_look:
            self._looks = self._looks or tuple(map(jax.device_put, np.asarray([False, True])))
            kwargs[LOOK] = self._looks[look]
        outputs, measured = self._compiled(*args, **kwargs)
        self._recorder.returned(measured, outputs)
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def rebuilt(step: Step, recorder: Recorder) -> Step | None:
    """The step with readings as further outputs, or None when there is nothing to build anew.

    Parameters
    ----------
    step : callable
        From `jax.jit`, `nnx.jit` or `jax.pmap`; or a bound method or `functools.partial` of such.
    recorder : Recorder
        Told what each run measured.
    """
    if isinstance(step, functools.partial):
        inner = rebuilt(step.func, recorder)
        return None if inner is None else functools.partial(inner, *step.args, **step.keywords)
    if getattr(step, "__self__", None) is not None and hasattr(step, "__func__"):
        inner = rebuilt(step.__func__, recorder)
        return None if inner is None else functools.partial(inner, step.__self__)
    for build in (_jitted, _nnx, _pmapped):
        made = build(step, recorder)
        if made is not None:
            return made
    return None


def _traced(function: Step, recorder: Recorder) -> Step:
    """The function with a second output: what was measured while it was traced."""

    @functools.wraps(function, updated=())
    def traced(*args: Any, **kwargs: Any) -> Any:
        sheet = Sheet(recorder, kwargs.pop(LOOK, ALWAYS))
        with active(recorder, recorder.key, sheet):
            outputs = function(*args, **kwargs)
        recorder.check_head()
        return outputs, sheet.measured

    return traced


def _jitted(step: Step, recorder: Recorder, function: Step | None = None) -> Rebuilt | None:
    info = getattr(step, "_jit_info", None)
    if info is None:
        return None
    options = {
        name: getattr(info, name)
        for name in ("static_argnums", "static_argnames", "donate_argnums", "donate_argnames", "keep_unused", "inline")
    }
    options |= {name: getattr(info, name) for name in ("device", "backend") if getattr(info, name) is not None}
    if info.compiler_options_kvs:
        options["compiler_options"] = dict(info.compiler_options_kvs)
    if _placed(info, "in"):
        options["in_shardings"] = _placement(info, "in")
    if _placed(info, "out"):
        options["out_shardings"] = (_placement(info, "out"), None)
    compiled = jax.jit(_traced(function or step.__wrapped__, recorder), **options)
    return Rebuilt(step, compiled, recorder, takes_look="in_shardings" not in options)


def _placed(info: Any, side: str) -> bool:
    """Whether the user said where inputs or outputs live."""
    return any(isinstance(leaf, Sharding | PartitionSpec) for leaf in getattr(info, f"{side}_shardings_leaves"))


def _placement(info: Any, side: str) -> Any:
    """Shardings as the user gave them, with layouts where there are any."""
    layouts, shardings = getattr(info, f"{side}_layouts_leaves"), getattr(info, f"{side}_shardings_leaves")
    tree = getattr(info, f"{side}_shardings_treedef")
    leaves = [s if layout is None else Format(layout, s) for layout, s in zip(layouts, shardings, strict=True)]
    return tree.unflatten(leaves)


def _nnx(step: Step, recorder: Recorder) -> Step | None:
    """`nnx.jit` keeps a `jax.jit` inside, whose result it writes into the model: that one is rebuilt."""
    inner = getattr(step, "jitted_fn", None)
    if inner is None or not hasattr(inner, "_jit_info"):
        return None
    outer = copy.copy(step)
    function = copy.copy(inner.__wrapped__)
    if hasattr(function, "ctxtag"):
        function.ctxtag = outer
    outer.jitted_fn = _jitted(inner, recorder, function)
    return outer


def _pmapped(step: Step, recorder: Recorder) -> Step | None:
    """`jax.pmap` keeps its options in the variables of a closure only."""
    outer = _variables(step)
    if "infer_params" not in outer:
        return None
    kept = _variables(outer["infer_params"])
    try:
        static = tuple(kept["static_broadcasted_tuple"])
        options = {name: kept[name] for name in ("axis_name", "in_axes", "devices", "backend", "axis_size")}
        out_axes = jax.tree.unflatten(kept["out_axes_tree"], kept["out_axes_flat"])
        donated = kept["donate_tuple"]
    except KeyError:
        return None
    count = len(static) + max(donated, default=-1) + 1
    dynamic = [index for index in range(count) if index not in static]
    compiled = jax.pmap(
        _traced(step.__wrapped__, recorder),
        **options,
        out_axes=(out_axes, 0),
        static_broadcasted_argnums=static,
        donate_argnums=tuple(dynamic[index] for index in donated),
    )
    return Rebuilt(step, compiled, recorder, takes_look=False)


def _variables(function: Any) -> dict[str, Any]:
    if not isinstance(function, types.FunctionType) or function.__closure__ is None:
        return {}
    return dict(zip(function.__code__.co_freevars, (cell.cell_contents for cell in function.__closure__), strict=True))
