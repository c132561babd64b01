"""CTC501."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ctcguard.readings import Readings
from ctcguard.rules.loss.negative_loss import NegativeLoss


def readings(*losses: float, frames: int = 100, **other: Any) -> Readings:
    return Readings({"losses": np.asarray(losses), "frames": frames, **other})


@pytest.mark.parametrize(
    "healthy",
    [
        readings(0.0, 3.5, 1e9),
        readings(-1e-3),
        readings(-3e-3, frames=3000),
        readings(-8.3e-8),
        readings(-4.8e-4, frames=3000),
        readings(-3e-3, input_lengths=np.asarray([3000.0])),
        readings(-0.1, logsumexp_max=1e-3),
        readings(-1.0, logsumexp_max=1e-2),
        readings(-0.22, logsumexp_max=0.019, softmax_dtype="bfloat16"),
        readings(-0.22, logsumexp_max=0.0, softmax_dtype="bfloat16"),
        readings(-0.22, logsumexp_max=0.019, softmax_dtype="float32", fits_bfloat16=1.0),
    ],
)
def test_rounding_is_silent(healthy: Readings) -> None:
    assert NegativeLoss().check(healthy) is None


@pytest.mark.parametrize(
    "sick",
    [
        readings(-1.01e-3),
        readings(-3.1e-3, frames=3000),
        readings(-2e-3, frames=3000, input_lengths=np.asarray([1000.0])),
        readings(-0.2, logsumexp_max=1e-3),
        readings(-0.2, logsumexp_max=-1e-3),
        readings(-0.2, logsumexp_max=np.nan),
        readings(-1.1, logsumexp_max=1e-2),
        readings(-0.2, logsumexp_max=1.1e-2),
        readings(-0.2, logsumexp_max=1.1e-2, softmax_dtype="float16"),
        readings(-0.222, logsumexp_max=0.019, softmax_dtype="bfloat16"),
    ],
)
def test_fires_beyond_it(sick: Readings) -> None:
    finding = NegativeLoss().check(sick)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC501", "negative", "error")


def test_no_number_is_left_to_the_rule_about_those() -> None:
    assert NegativeLoss().check(readings(np.nan, np.inf, -np.inf)) is None


def test_names_the_lowest_first() -> None:
    finding = NegativeLoss().check(readings(3.0, -0.5, -5.34, np.nan, -np.inf))
    assert finding is not None
    assert [(item.index, item.note) for item in finding.utterances] == [(2, "loss -5.34 nats"), (1, "loss -0.5 nats")]
    assert finding.affected == {1, 2}
    assert finding.message == "a CTC loss must not be below 0 but is -5.34 nats (limit -0.001)"
    assert "log_softmax" in finding.fix


def test_the_band_can_be_set() -> None:
    assert NegativeLoss(band_nats=1.0).check(readings(-0.9)) is None
