"""Probes: arrays in, one small packed array out, and back to named readings on the host.

`CONTRACT` probes look at targets and lengths; they are cheap and run before the loss. `DISTRIBUTION` probes look at the
scores and losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctcguard._array import Array, HostArray, like, namespace, to_numpy
from ctcguard.call import CTCCall
from ctcguard.probes.lengths import lengths
from ctcguard.probes.log_probs import frame_maxima, normalisation, other_axes
from ctcguard.probes.loss import alignment_cost, losses
from ctcguard.probes.targets import label_faults

Probe = Callable[[CTCCall], dict[str, Array]]

CONTRACT: tuple[Probe, ...] = (lengths, label_faults)
DISTRIBUTION: tuple[Probe, ...] = (losses, frame_maxima, normalisation, other_axes, alignment_cost)


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of what a packed array holds: first the scalars, then the columns, each ``batch`` long."""

    scalars: tuple[str, ...]
    columns: tuple[str, ...]
    batch: int


def measure(call: CTCCall, probes: Sequence[Probe], beside: Array | None = None) -> tuple[Array, Layout]:
    """Run probes and pack what they return into one array.

    Parameters
    ----------
    call : CTCCall
        The call to measure.
    probes : sequence of callables
        `CONTRACT`, `DISTRIBUTION` or both.
    beside : array, optional
        The packed array joins this array's library and device; by default that of the first value.

    Returns
    -------
    packed : array, (scalars + columns × batch,)
        float64 if one of the values is, else float32. Not on the host: nothing waits for the device.
    layout : Layout
        What stands where; static for a shape.
    """
    values = {name: value for probe in probes for name, value in probe(call).items()}
    first = next(iter(values.values())) if beside is None else beside
    xp = namespace(first)
    wide = any(_is_float64(value) for value in values.values())
    dtype = xp.float64 if wide else xp.float32
    ready = {name: xp.astype(like(first, value), dtype, copy=False) for name, value in values.items()}
    scalars = tuple(name for name, value in ready.items() if value.ndim == 0)
    columns = tuple(name for name, value in ready.items() if value.ndim == 1)
    parts = [xp.reshape(ready[name], (-1,)) for name in scalars + columns]
    return xp.concat(parts), Layout(scalars, columns, call.batch)


def unpack(packed: Array, layout: Layout) -> dict[str, float | HostArray]:
    """Readings by name from a packed array: floats, and columns (batch,). This waits for the device."""
    host = to_numpy(packed)
    readings: dict[str, float | HostArray] = {name: float(host[i]) for i, name in enumerate(layout.scalars)}
    rest = host[len(layout.scalars) :].reshape(len(layout.columns), layout.batch)
    return readings | dict(zip(layout.columns, rest, strict=True))


def _is_float64(value: Array) -> bool:
    return str(value.dtype).endswith("float64")
