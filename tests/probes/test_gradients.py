"""The largest gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ctcguard.probes.gradients import gradient_abs_max

LIBRARIES = (np.asarray, array_api_strict.asarray, torch.asarray, jnp.asarray)


@pytest.mark.parametrize("convert", LIBRARIES)
@pytest.mark.parametrize(
    ("values", "largest"),
    [
        ([[1.0, -3.0], [[2.0]]], [3.0, 2.0]),
        ([[0.0]], [0.0]),
        ([[1.0, np.nan], [np.inf]], [np.nan, np.inf]),
        ([[1.0], [-np.inf]], [1.0, np.inf]),
    ],
)
def test_largest_magnitude(convert: Callable[[Any], Any], values: list[list[float]], largest: list[float]) -> None:
    found = gradient_abs_max([convert(np.asarray(value, np.float32)) for value in values])
    np.testing.assert_equal([float(value) for value in found], largest)


def test_inside_jit() -> None:
    assert jax.jit(lambda a, b: gradient_abs_max([a, b]))(jnp.ones(3), -2 * jnp.ones((2, 2))).tolist() == [1, 2]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_may_differ(kind: torch.dtype) -> None:
    assert gradient_abs_max([torch.ones(3), torch.full((2,), 5.0, dtype=kind)]).tolist() == [1, 5]


def test_meta_tensors_run_through() -> None:
    assert gradient_abs_max([torch.ones(3, device="meta")]).shape == (1,)


@pytest.mark.parametrize(
    ("none", "error"), [([], IndexError), ([np.zeros(0)], ValueError), ([torch.zeros(0)], RuntimeError)]
)
def test_no_gradient_at_all_is_an_error(none: list[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        gradient_abs_max(none)
