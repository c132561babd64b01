"""The only file that knows array libraries. It finds them by what they already imported, and imports none itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeAlias

import array_api_compat
import numpy as np

Array: TypeAlias = Any
HostArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class _Library:
    """What is asked of an array again and again, known for its type."""

    xp: ModuleType
    is_torch: bool
    is_jax: bool


_HERE: HostArray = np.zeros(0)
_KNOWN: dict[type, _Library] = {}
if hasattr(np, "cumulative_sum"):  # numpy follows the standard itself: a detour would double the time of small arrays
    _KNOWN[np.ndarray] = _Library(np, is_torch=False, is_jax=False)


def _library(array: Array) -> _Library:
    found = _KNOWN.get(type(array))
    if found is None:
        xp = array_api_compat.array_namespace(array)
        torch, jax = array_api_compat.is_torch_array(array), array_api_compat.is_jax_array(array)
        found = _KNOWN[type(array)] = _Library(xp, torch, jax)
    return found


def quiet() -> Any:
    """A context in which numpy does not warn of NaN and infinities: they are what is looked for."""
    return np.errstate(all="ignore")


def namespace(*arrays: Array) -> ModuleType:
    """The array API namespace that all the arrays share."""
    if len(arrays) == 1:
        return _library(arrays[0]).xp
    found: ModuleType = array_api_compat.array_namespace(*arrays)
    return found


def is_array(value: object) -> bool:
    """Whether a value is an array of a library that ctcguard can measure."""
    return type(value) in _KNOWN or bool(array_api_compat.is_array_api_obj(value))


def is_host(value: Array) -> bool:
    """Whether reading the array costs no transfer: it is numpy's, or a torch tensor on the CPU."""
    if isinstance(value, np.ndarray | np.generic):
        return True
    return array_api_compat.is_torch_array(value) and value.device.type == "cpu"


def host_view(value: Array) -> Array:
    """A numpy view of an array that is on the host already; any other array as it is."""
    if isinstance(value, np.ndarray | np.generic) or not is_host(value):
        return value
    return value.detach().numpy()


def narrow_view(value: Array) -> Array:
    """A numpy view of scores on the host; those of a dtype that numpy lacks (bfloat16), and all others, as they are."""
    return host_view(value) if dtype_name(value) in ("float32", "float64", "float16") else value


def turned(values: Array) -> Array:
    """(…, last) as (last, all others), by one copy; on the host numpy's."""
    values = host_view(values)
    xp = namespace(values)
    return xp.reshape(xp.permute_dims(values, (values.ndim - 1, *range(values.ndim - 1))), (values.shape[-1], -1))


def blocks(values: Array, size: int) -> list[slice]:
    """Parts of the last axis of (rows, columns), about ``size`` values each; one for JAX, whose compiler needs one."""
    rows, columns = values.shape
    width = columns if _library(values).is_jax else max(1, size // rows)
    return [slice(start, min(start + width, columns)) for start in range(0, columns, width)]


def beside(scores: Array) -> Array:
    """An array in whose library small arrays of a call belong: numpy's for scores on the host, else the scores'."""
    return _HERE if is_host(scores) else scores


def as_array(values: Any) -> Array:
    """An array as it is; a list, tuple or int of whole numbers as a numpy array of int64."""
    return values if is_array(values) else np.asarray(values, dtype=np.int64)


def like(reference: Array, values: Array) -> Array:
    """``values`` in the library and on the device of ``reference``; the same object where it is there already."""
    if type(values) is np.ndarray and type(reference) is np.ndarray:
        return values
    xp = namespace(reference)
    device = array_api_compat.device(reference)
    if namespace(values) is xp and (_library(values).is_jax or array_api_compat.device(values) == device):
        return values
    host = np.asarray(host_view(values))
    return xp.asarray(host if host.flags.writeable else host.copy(), device=device)  # torch warns of read-only memory


def to_numpy(value: Array) -> HostArray:
    """The values on the host, as float64. This waits for the device."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float64, copy=False)
    if _library(value).is_torch:
        value = value.detach().cpu().double().numpy()
    elif array_api_compat.is_array_api_strict_namespace(namespace(value)):
        value = np.from_dlpack(value)
    return np.asarray(value, dtype=np.float64)


def default_int(xp: ModuleType) -> Any:
    """The library's own integer type: int64, or int32 in JAX without x64."""
    return xp.__array_namespace_info__().default_dtypes()["integral"]


def arange(reference: Array, size: int) -> Array:
    """0 … size - 1 in the library and on the device of ``reference``, (size,); not to be written to."""
    if type(reference) is np.ndarray:
        return _host_arange(size)
    xp = namespace(reference)
    return xp.arange(size, dtype=default_int(xp), device=array_api_compat.device(reference))


@lru_cache(maxsize=64)
def _host_arange(size: int) -> HostArray:
    return np.arange(size)


def whole(reference: Array, values: Array) -> Array:
    """``values`` as integers, in the library and on the device of ``reference``."""
    if type(values) is np.ndarray and type(reference) is np.ndarray:
        return values.astype(np.int64, copy=False)
    xp = namespace(reference)
    return xp.astype(like(reference, values), default_int(xp), copy=False)


def wide(values: Array) -> Array:
    """float64 as it is, everything else as float32: exact enough for sums."""
    xp = namespace(values)
    return values if values.dtype == xp.float64 else xp.astype(values, xp.float32, copy=False)


def highest(values: Array, axis: int | None = None, keepdims: bool = False) -> Array:
    """The largest value; NaN where there is one, in every library: XLA's own maximum loses it on the CPU."""
    xp = namespace(values)
    found = xp.max(values, axis=axis, keepdims=keepdims)
    if not _library(values).is_jax:
        return found
    return xp.where(xp.any(xp.isnan(values), axis=axis, keepdims=keepdims), found * 0 + float("nan"), found)


def lowest(values: Array, axis: int | None = None) -> Array:
    """The smallest value; NaN where there is one, in every library."""
    if _library(values).is_jax:
        return -highest(-values, axis=axis)
    return namespace(values).min(values, axis=axis)


def dtype_name(value: Array) -> str:
    """The plain name of the dtype, for instance ``"bfloat16"``."""
    return _name(id(type(value.dtype)), value.dtype)


@lru_cache(maxsize=256)
def _name(library: int, dtype: Any) -> str:  # dtypes of two libraries are never compared: array-api-strict would warn
    return str(dtype).rsplit(".", 1)[-1]


def abs_max(arrays: Sequence[Array]) -> Array:
    """The largest magnitude in each array of a list, float32, (arrays,); NaN wherever one of its elements is NaN.

    torch's fused kernel reads all of them at once; any other library reads them one after the other.
    """
    xp = namespace(arrays[0])
    if _library(arrays[0]).is_torch:
        norms = sys.modules["torch"]._foreach_norm([array.detach() for array in arrays], float("inf"))
        if len({(norm.device, norm.dtype) for norm in norms}) > 1:
            norms = [norm.to(device=norms[0].device, dtype=xp.float32) for norm in norms]
        return xp.astype(xp.stack(list(norms)), xp.float32)
    return xp.stack([xp.astype(xp.max(xp.abs(array)), xp.float32) for array in arrays])


def copied(value: Array, rows: Sequence[int] | None = None) -> tuple[HostArray, str]:
    """A copy on the host, bit for bit, with the name of its dtype; bfloat16 as uint16, for numpy has none.

    This waits for the device.

    Parameters
    ----------
    value : array
        Of any library, on any device.
    rows : sequence of int, optional
        Which items of the first axis, in this order; all of them when not given.
    """
    if _library(value).is_torch:
        value, name = value.detach(), dtype_name(value)
        value = value.view(sys.modules["torch"].int16) if name == "bfloat16" else value
        value = (value if rows is None else value[list(rows)]).cpu().numpy()
    else:
        value = np.asarray(value)
        value, name = value if rows is None else value[list(rows)], dtype_name(value)
    return np.array(value.view(np.uint16) if name == "bfloat16" else value, order="C"), name
