"""One fixture that measures the same call with every array library, and inside ``jax.jit``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ctcguard.call import ctc_call
from ctcguard.probes import CONTRACT, DISTRIBUTION, measure, unpack

LAYOUTS: dict[Any, Any] = {}
Measure = Callable[..., dict[str, Any]]


def eagerly(convert: Callable[[Any], Any]) -> Measure:
    def measured(probes: Any = CONTRACT + DISTRIBUTION, **call: Any) -> dict[str, Any]:
        ready = {k: convert(v) if isinstance(v, np.ndarray) else v for k, v in call.items()}
        return unpack(*measure(ctc_call(**ready), probes))

    return measured


@functools.partial(jax.jit, static_argnums=0)
def traced(static: tuple[Any, ...], arrays: dict[str, Any]) -> Any:
    packed, LAYOUTS[static, shapes(arrays)] = measure(ctc_call(**{**dict(static[1]), **arrays}), static[0])
    return packed


def shapes(arrays: dict[str, Any]) -> tuple[Any, ...]:
    return tuple((name, array.shape, str(array.dtype)) for name, array in sorted(arrays.items()))


def frozen(value: Any) -> Any:
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def jitted(probes: Any = CONTRACT + DISTRIBUTION, **call: Any) -> dict[str, Any]:
    """As eagerly, but all arrays are traced; compiled once for each form of a call."""
    arrays = {k: jnp.asarray(v) for k, v in call.items() if isinstance(v, np.ndarray)}
    static = (probes, tuple((k, frozen(v)) for k, v in call.items() if k not in arrays))
    return unpack(traced(static, arrays), LAYOUTS[static, shapes(arrays)])


LIBRARIES: dict[str, Measure] = {
    "numpy": eagerly(np.asarray),
    "array-api-strict": eagerly(array_api_strict.asarray),
    "torch": eagerly(torch.asarray),
    "jax.jit": jitted,
}


@pytest.fixture(params=LIBRARIES)
def measured(request: pytest.FixtureRequest) -> Measure:
    """Readings of a call whose numpy arrays are first brought into the library of the parameter."""
    return LIBRARIES[request.param]
