"""CTC506."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctcguard.readings import Readings
from ctcguard.rules.loss.accumulation_scale import AccumulationScale

CTC = np.asarray([13.5, 12.9, 14.1, 13.6])


def readings(factor: Any, steps: int = 4, ctc: np.ndarray = CTC) -> Readings:
    return Readings({"accumulation_steps": steps, "ctc_losses": ctc, "trainer_losses": np.asarray(factor) * ctc})


@pytest.mark.parametrize(
    "healthy",
    [
        readings(1 / 4),
        readings(1 / 2),
        readings(1.011),
        readings(0.989),
        readings([1, 1, 1, 0.25]),
        readings([1, 1, 1, 1.02]),
        readings(4.0),
        readings(-1.0),
        readings(0.0),
        readings(1, steps=1, ctc=CTC[:1]),
        readings(1, ctc=np.zeros(4)),
        readings(1, ctc=np.asarray([13.5, np.nan, 14.1, 13.6])),
        readings(1, ctc=np.asarray([13.5, np.inf, 14.1, 13.6])),
    ],
)
def test_healthy(healthy: Readings) -> None:
    assert AccumulationScale().check(healthy) is None


@pytest.mark.parametrize("factor", [1.0, 1.009, 0.991, [1, 1.005, 1, 0.995]])
def test_fires(factor: Any) -> None:
    finding = AccumulationScale().check(readings(factor))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC506", "mean-reduction", "warning")
    assert "each must count 1/4, but each counts in full: loss and gradient are 4 times too large" in finding.message
    assert "a CTC loss of 13.5, not 3.375" in finding.evidence
    assert "trainer.model_accepts_loss_kwargs = False before trainer.train()" in finding.fix
    assert "gradient_accumulation_steps=4" in finding.fix


def test_the_numbers() -> None:
    finding = AccumulationScale().check(readings(1.0))
    assert finding is not None
    assert finding.readings == {"accumulation_steps": 4, "loss": pytest.approx(54.1), "ctc_loss": pytest.approx(13.525)}
    assert "(54.1 for 13.52 nats)" in finding.message or "(54.1 for 13.53 nats)" in finding.message


def test_the_tolerance_can_be_set() -> None:
    assert AccumulationScale(tolerance_fraction=0.1).check(readings(1.09)) is not None


def test_what_the_page_says_of_optax() -> None:
    optimizer = optax.MultiSteps(optax.sgd(1.0), every_k_schedule=4)
    weight, state = jnp.zeros(()), optimizer.init(jnp.zeros(()))
    for gradient in (1.0, 2.0, 3.0, 6.0):
        change, state = optimizer.update(jnp.asarray(gradient), state, weight)
        weight = optax.apply_updates(weight, change)
    assert float(weight) == -3.0
