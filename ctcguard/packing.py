"""What was measured as one small array, the only thing that travels to the host, and back to named readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ctcguard._array import Array, HostArray, arange, host_view, is_host, like, namespace, to_numpy, wide


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of what a packed array holds: scalars, then columns, each ``batch`` long, then blocks of any shape."""

    scalars: tuple[str, ...]
    columns: tuple[str, ...]
    batch: int
    blocks: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they stand."""
        return (*self.scalars, *self.columns, *(name for name, _ in self.blocks))

    @property
    def size(self) -> int:
        """Numbers in the packed array."""
        return len(self.scalars) + len(self.columns) * self.batch + sum(prod(shape) for _, shape in self.blocks)


def layout_of(values: Mapping[str, Array], batch: int) -> Layout:
    """Where each value goes, by its rank; static for a shape."""
    return Layout(
        tuple(name for name, value in values.items() if value.ndim == 0),
        tuple(name for name, value in values.items() if value.ndim == 1),
        batch,
        tuple((name, tuple(map(int, value.shape))) for name, value in values.items() if value.ndim > 1),
    )


def pack(values: Mapping[str, Array], batch: int, reference: Array | None = None) -> tuple[Array, Layout]:
    """Named values as one array.

    Parameters
    ----------
    values : mapping of name to array
        Scalars (), columns (batch,) and blocks of any shape.
    batch : int
        Length of the columns.
    reference : array, optional
        The packed array joins this array's library and device; by default that of the first value that is not on the
        host, for moving that one would wait for the device. When all are on the host, it is numpy's.

    Returns
    -------
    packed : array, (scalars + columns × batch + sizes of blocks,)
        float64 from numpy, and if one of the values is; else float32. Nothing waits for a device. Empty without values.
    layout : Layout
        What stands where.
    """
    layout = layout_of(values, batch)
    if reference is None:
        reference = next((value for value in values.values() if not is_host(value)), None)
    if reference is None:
        parts = [host_view(values[name]).reshape(-1) for name in layout.names]
        return np.concatenate(parts, dtype=np.float64, casting="unsafe") if parts else np.zeros(0), layout
    # Whole numbers as float32 in their own library: another one may have no integers that wide.
    ready = [like(reference, wide(values[name])) for name in layout.names]
    xp = namespace(reference)
    dtype = xp.float64 if any(value.dtype == xp.float64 for value in ready) else xp.float32
    flat = [xp.reshape(xp.astype(value, dtype, copy=False), (-1,)) for value in ready]
    return xp.concat(flat) if flat else xp.astype(arange(reference, 0), dtype), layout


def unpack(packed: Array, layout: Layout) -> dict[str, float | HostArray]:
    """Readings by name from a packed array: floats, columns (batch,), blocks. This waits for the device."""
    host = to_numpy(packed)
    start, end = len(layout.scalars), len(layout.scalars) + len(layout.columns) * layout.batch
    readings: dict[str, float | HostArray] = dict(zip(layout.scalars, host[:start].tolist(), strict=True))
    readings |= dict(zip(layout.columns, host[start:end].reshape(len(layout.columns), layout.batch), strict=True))
    for name, shape in layout.blocks:
        start, end = end, end + prod(shape)
        readings[name] = host[start:end].reshape(shape)
    return readings


def listed(packed: HostArray, layout: Layout) -> dict[str, Any]:
    """As `unpack`, of an array on the host without blocks: floats, and columns as lists, which cost a fraction."""
    numbers = packed.tolist()
    first, batch = len(layout.scalars), layout.batch
    found = dict(zip(layout.scalars, numbers[:first], strict=True))
    for place, name in enumerate(layout.columns):
        start = first + place * batch
        found[name] = numbers[start : start + batch]
    return found
