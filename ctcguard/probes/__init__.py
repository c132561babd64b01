"""Probes: arrays in, one small packed array out, and back to named readings on the host.

`CONTRACT` probes look at targets and lengths; they are cheap and run before the loss. `DISTRIBUTION` probes look at the
scores and losses: `EXACT` ones at every call, `SAMPLED` ones less often when the guard is over its budget. One whole
utterance (`one_utterance`) is looked at at the first call, and rarely after it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from ctcguard._array import Array, HostArray, arange, dtype_name, is_host, like, namespace, quiet, to_numpy
from ctcguard.call import CTCCall
from ctcguard.probes.lengths import lengths
from ctcguard.probes.log_probs import constant_tails, frame_maxima, greedy, normalisation, other_axes
from ctcguard.probes.loss import alignment_cost, losses
from ctcguard.probes.targets import label_faults, removed_labels, transcripts, unknown_labels
from ctcguard.probes.utterance import one_utterance

Probe = Callable[[CTCCall], dict[str, Array]]

CONTRACT: tuple[Probe, ...] = (lengths, label_faults, unknown_labels, removed_labels, transcripts)
EXACT: tuple[Probe, ...] = (losses, frame_maxima)
SAMPLED: tuple[Probe, ...] = (normalisation, greedy, constant_tails, other_axes, alignment_cost)
DISTRIBUTION = EXACT + SAMPLED


__all__ = ["CONTRACT", "DISTRIBUTION", "EXACT", "SAMPLED", "Layout", "Probe", "measure", "one_utterance", "unpack"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of what a packed array holds: scalars, then columns, each ``batch`` long, then blocks of any shape."""

    scalars: tuple[str, ...]
    columns: tuple[str, ...]
    batch: int
    blocks: tuple[tuple[str, tuple[int, ...]], ...] = ()


def measure(call: CTCCall, probes: Sequence[Probe], beside: Array | None = None) -> tuple[Array, Layout]:
    """Run probes and pack what they return into one array.

    Parameters
    ----------
    call : CTCCall
        The call to measure.
    probes : sequence of callables
        `CONTRACT`, `DISTRIBUTION` or both.
    beside : array, optional
        The packed array joins this array's library and device; by default that of the first value that is not on the
        host, for moving that one would wait for the device.

    Returns
    -------
    packed : array, (scalars + columns × batch + sizes of blocks,)
        float64 if one of the values is, else float32. Not on the host: nothing waits for the device. Empty when no
        probe had anything to measure.
    layout : Layout
        What stands where; static for a shape.
    """
    # A NaN or an infinity is a result here, not an accident to be warned of.
    with quiet():
        values = {name: _real(value) for probe in probes for name, value in probe(call).items()}
        arrays = list(values.values())
        first = beside if beside is not None else next((a for a in arrays if not is_host(a)), (*arrays, call.scores)[0])
        xp = namespace(first)
        ready = {name: like(first, value) for name, value in values.items()}
        wide = any(_is_float64(value) for value in ready.values())
        dtype = xp.float64 if wide else xp.float32
        scalars = tuple(name for name, value in ready.items() if value.ndim == 0)
        columns = tuple(name for name, value in ready.items() if value.ndim == 1)
        blocks = tuple((name, tuple(map(int, value.shape))) for name, value in ready.items() if value.ndim > 1)
        names = (*scalars, *columns, *(name for name, _ in blocks))
        parts = [xp.reshape(xp.astype(ready[name], dtype, copy=False), (-1,)) for name in names]
        packed = xp.concat(parts) if parts else xp.astype(arange(first, 0), dtype)
        return packed, Layout(scalars, columns, call.batch, blocks)


def unpack(packed: Array, layout: Layout) -> dict[str, float | HostArray]:
    """Readings by name from a packed array: floats, columns (batch,), blocks. This waits for the device."""
    host = to_numpy(packed)
    readings: dict[str, float | HostArray] = {name: float(host[i]) for i, name in enumerate(layout.scalars)}
    end = len(layout.scalars) + len(layout.columns) * layout.batch
    rest = host[len(layout.scalars) : end].reshape(len(layout.columns), layout.batch)
    readings |= dict(zip(layout.columns, rest, strict=True))
    for name, shape in layout.blocks:
        start, end = end, end + prod(shape)
        readings[name] = host[start:end].reshape(shape)
    return readings


def _real(value: Array) -> Array:
    """Whole numbers as float32 in their own library: another one may have no integers that wide."""
    xp = namespace(value)
    return value if _is_float64(value) else xp.astype(value, xp.float32, copy=False)


def _is_float64(value: Array) -> bool:
    return dtype_name(value) == "float64"
