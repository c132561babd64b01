"""CTC604."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from ctcguard.readings import Readings
from ctcguard.rules.gradients.loss_scale_collapse import LossScaleCollapse


def readings(scale: float, halvings: int, **other: Any) -> Readings:
    return Readings({"loss_scale": scale, "loss_scale_halvings": halvings, **other})


@pytest.mark.parametrize(
    "healthy",
    [
        readings(8192.0, 3),
        readings(2048.0, 5),
        readings(64.0, 10),
        readings(1.0, 16),
        readings(0.0625, 20),
        readings(0.03125, 9),
        readings(0.001, 1),
    ],
)
def test_healthy(healthy: Readings) -> None:
    assert LossScaleCollapse().check(healthy) is None


@pytest.mark.parametrize(("scale", "halvings"), [(0.0624, 10), (0.03125, 21), (0.0, 170), (np.nan, 10)])
def test_fires(scale: float, halvings: int) -> None:
    finding = LossScaleCollapse().check(readings(scale, halvings))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC604", "gradient-overflow", "error")
    assert f"fell in each of {halvings} steps in a row, to {scale:g}" in finding.message
    assert "torch.autograd.detect_anomaly()" in finding.fix


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_of_the_step_is_named(bad: float) -> None:
    finding = LossScaleCollapse().check(readings(0.01, 12, losses=np.asarray([3.0, bad, 4.0])))
    assert finding is not None
    assert finding.cause == "loss"
    assert "1 of 3 losses" in finding.evidence
    assert "utterance 1" in finding.fix
    finding = LossScaleCollapse().check(readings(0.01, 12, losses=np.asarray([3.0, 4.0])))
    assert finding is not None
    assert finding.cause == "gradient-overflow"


def test_the_limits_can_be_set() -> None:
    assert LossScaleCollapse(halvings=5).check(readings(0.01, 5)) is not None
    assert LossScaleCollapse(least_scale=128).check(readings(64.0, 10)) is not None


def test_what_the_page_says_of_the_scale() -> None:
    """A gradient that is never finite: 0 after so many steps."""
    weight = torch.zeros(1, requires_grad=True)
    optimizer, scaler = torch.optim.SGD([weight], lr=1.0), torch.amp.GradScaler("cpu")
    scales = []
    for _ in range(170):
        optimizer.zero_grad()
        scaler.scale(weight.sum() * torch.inf).backward()
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    assert scales.index(0.0) == 165
    assert weight.item() == 0.0


def test_what_the_page_says_of_optax() -> None:
    optimizer = optax.apply_if_finite(optax.sgd(1.0), max_consecutive_errors=3)
    weight, state, weights = jnp.zeros(()), optimizer.init(jnp.zeros(())), []
    for _ in range(5):
        change, state = optimizer.update(jnp.asarray(jnp.nan), state, weight)
        weights.append(float(optax.apply_updates(weight, change)))
    assert weights[:3] == [0.0, 0.0, 0.0]
    assert np.isnan(weights[3])
