"""How outputs of two passes differ, in every array library, against slow loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import array_api_strict
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ctcguard.probes.model import ROUNDING, frame_changes, spread

LIBRARIES = (np.asarray, array_api_strict.asarray, torch.asarray, jnp.asarray)
every_library = pytest.mark.parametrize("convert", LIBRARIES, ids=["numpy", "strict", "torch", "jax"])
Convert = Callable[[Any], Any]


def scores(seed: int, frames: int = 7) -> Any:
    return np.random.default_rng(seed).normal(size=(3, frames, 5)).astype(np.float32)


@every_library
def test_changes_against_a_loop(convert: Convert) -> None:
    before, after, valid = scores(0), scores(1, frames=9), [7, 3, 0]
    found = np.asarray(frame_changes(convert(before), convert(after), convert(np.asarray(valid))))
    assert found.shape == (3, 7)
    for row in range(3):
        for frame in range(7):
            worst = max(abs(float(a) - float(b)) for a, b in zip(before[row, frame], after[row, frame], strict=True))
            assert found[row, frame] == pytest.approx(worst if frame < valid[row] else 0.0, rel=1e-6)


@every_library
def test_infinities_and_nan(convert: Convert) -> None:
    before = np.asarray([[[-np.inf, 1.0], [-np.inf, 1.0], [np.nan, 1.0], [np.nan, 1.0]]], np.float32)
    after = np.asarray([[[-np.inf, 1.5], [0.0, 1.0], [np.nan, 1.0], [np.nan, 1.0]]], np.float32)
    found = np.asarray(frame_changes(convert(before), convert(after), convert(np.asarray([3]))))
    np.testing.assert_array_equal(found, [[0.5, np.inf, np.nan, 0.0]])


@every_library
def test_spread_against_a_loop(convert: Convert) -> None:
    values, valid = scores(2), [7, 4, 1]
    values[0, 0, 0] = -np.inf
    kept = [(c, float(values[b, t, c])) for b in range(3) for t in range(valid[b]) for c in range(5)]
    kept = [(c, value) for c, value in kept if np.isfinite(value)]
    means = {c: np.mean([value for other, value in kept if other == c]) for c in range(5)}
    whole, over_frames = spread(convert(values), convert(np.asarray(valid)))
    assert float(whole) == pytest.approx(np.std([value for _, value in kept]), rel=1e-5)
    assert float(over_frames) == pytest.approx(np.sqrt(np.mean([(v - means[c]) ** 2 for c, v in kept])), rel=1e-5)


@every_library
def test_nothing_valid_has_no_spread(convert: Convert) -> None:
    assert [float(value) for value in spread(convert(scores(0)), convert(np.zeros(3, int)))] == [0.0, 0.0]


def test_inside_jit() -> None:
    found = jax.jit(frame_changes)(jnp.zeros((1, 2, 3)), jnp.ones((1, 2, 3)), jnp.asarray([1]))
    assert found.tolist() == [[1.0, 0.0]]
    assert [float(value) for value in jax.jit(spread)(jnp.zeros((1, 2, 3)), jnp.asarray([1]))] == [0.0, 0.0]


@pytest.mark.parametrize(("kind", "name"), [(torch.float16, "float16"), (torch.bfloat16, "bfloat16")])
def test_half_precision_stays_within_its_rounding(kind: torch.dtype, name: str) -> None:
    values = torch.asarray(scores(3))
    changes = frame_changes(values, values.to(kind), np.asarray([7, 7, 7]))
    whole, _ = spread(values, np.asarray([7, 7, 7]))
    assert 0 < float(changes.max()) < ROUNDING[name] * float(whole)
