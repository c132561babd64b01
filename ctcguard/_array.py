"""The only file that knows array libraries. It finds them by what they already imported, and imports none itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat
import numpy as np

Array: TypeAlias = Any
HostArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]


_NUMPY: ModuleType = array_api_compat.array_namespace(np.zeros(0))
SMALL = 2**18
"""Values up to which numpy, on one thread and with less overhead, is faster than torch on the CPU."""


def quiet() -> Any:
    """A context in which numpy does not warn of NaN and infinities: they are what is looked for."""
    return np.errstate(all="ignore")


def namespace(*arrays: Array) -> ModuleType:
    """The array API namespace that all the arrays share."""
    if all(type(array) is np.ndarray for array in arrays):
        return _NUMPY  # the most frequent case needs no search
    found: ModuleType = array_api_compat.array_namespace(*arrays)
    return found


def is_array(value: object) -> bool:
    """Whether a value is an array of a library that ctcguard can measure."""
    return bool(array_api_compat.is_array_api_obj(value))


def is_host(value: Array) -> bool:
    """Whether reading the array costs no transfer: it is numpy's, or a torch tensor on the CPU."""
    return isinstance(value, np.ndarray) or (array_api_compat.is_torch_array(value) and value.device.type == "cpu")


def host_view(value: Array) -> Array:
    """A numpy view of an array that is on the host already; any other array as it is."""
    return value.detach().numpy() if is_host(value) and not isinstance(value, np.ndarray) else value


def small_view(value: Array) -> Array:
    """A numpy view of a small float32 or float64 array on the host; any other array as it is."""
    fits = is_host(value) and dtype_name(value) in ("float32", "float64")
    return host_view(value) if fits and int(np.prod(value.shape)) <= SMALL else value


def as_array(values: Any) -> Array:
    """An array as it is; a list, tuple or int of whole numbers as a numpy array of int64."""
    return values if is_array(values) else np.asarray(values, dtype=np.int64)


def like(reference: Array, values: Array) -> Array:
    """``values`` in the library and on the device of ``reference``; the same object where it is there already."""
    if type(values) is np.ndarray and type(reference) is np.ndarray:
        return values
    xp = namespace(reference)
    device = array_api_compat.device(reference)
    if namespace(values) is xp and (array_api_compat.is_jax_array(values) or array_api_compat.device(values) == device):
        return values
    host = np.asarray(host_view(values))
    return xp.asarray(host if host.flags.writeable else host.copy(), device=device)  # torch warns of read-only memory


def to_numpy(value: Array) -> HostArray:
    """The values on the host, as float64. This waits for the device."""
    if array_api_compat.is_torch_array(value):
        value = value.detach().cpu().double().numpy()
    elif array_api_compat.is_array_api_strict_namespace(namespace(value)):
        value = np.from_dlpack(value)
    return np.asarray(value, dtype=np.float64)


def default_int(xp: ModuleType) -> Any:
    """The library's own integer type: int64, or int32 in JAX without x64."""
    return xp.__array_namespace_info__().default_dtypes()["integral"]


def arange(reference: Array, size: int) -> Array:
    """0 … size - 1 in the library and on the device of ``reference``, (size,)."""
    xp = namespace(reference)
    return xp.arange(size, dtype=default_int(xp), device=array_api_compat.device(reference))


def whole(reference: Array, values: Array) -> Array:
    """``values`` as integers, in the library and on the device of ``reference``."""
    xp = namespace(reference)
    return xp.astype(like(reference, values), default_int(xp), copy=False)


def highest(values: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """The largest value; NaN where there is one, in every library: XLA's own maximum loses it on the CPU."""
    xp = namespace(values)
    found = xp.max(values, axis=axis, keepdims=keepdims)
    if not array_api_compat.is_jax_array(values):
        return found
    return xp.where(xp.any(xp.isnan(values), axis=axis, keepdims=keepdims), found * 0 + float("nan"), found)


def lowest(values: Array, axis: int | None = None) -> Array:
    """The smallest value; NaN where there is one, in every library."""
    return -highest(-values, axis=axis)


def dtype_name(value: Array) -> str:
    """The plain name of the dtype, for instance ``"bfloat16"``."""
    return _name(id(type(value.dtype)), value.dtype)


@lru_cache(maxsize=256)
def _name(library: int, dtype: Any) -> str:  # dtypes of two libraries are never compared: array-api-strict would warn
    return str(dtype).rsplit(".", 1)[-1]


def abs_max(arrays: Sequence[Array]) -> Array:
    """The largest magnitude in a list of arrays, as a 0-d array; NaN wherever one element is NaN.

    torch's fused kernel reads all of them at once; any other library reads them one after the other.
    """
    xp = namespace(arrays[0])
    if array_api_compat.is_torch_array(arrays[0]):
        norms = sys.modules["torch"]._foreach_norm([array.detach() for array in arrays], float("inf"))
        if len({(norm.device, norm.dtype) for norm in norms}) > 1:
            norms = [norm.to(device=norms[0].device, dtype=xp.float32) for norm in norms]
        return xp.astype(xp.max(xp.stack(list(norms))), xp.float32)
    return xp.max(xp.stack([xp.astype(xp.max(xp.abs(array)), xp.float32) for array in arrays]))
