"""CTC404."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from ctcguard.provenance import UNKNOWN
from ctcguard.readings import Readings
from ctcguard.rules.log_probs.probabilities_as_logits import ProbabilitiesAsLogits
from tests.reference.calls import findings, of_optax

LOGITS = np.random.default_rng(0).normal(size=(2, 30, 6)).astype(np.float32)
CALL: dict[str, Any] = {"labels": np.asarray([[1, 2], [3, 3]]), "input_lengths": [30, 20], "target_lengths": [2, 2]}


def readings(**other: Any) -> Readings:
    values = {
        "expects": "logits",
        "sample_min": 0.0,
        "sample_max": 1.0,
        "row_sum_error": 0.0,
        "provenance": UNKNOWN,
        "softmax_dtype": "float32",
    }
    return Readings({**values, "fits_bfloat16": 0.0, "fits_float16": 0.0, "source": "optax.ctc_loss", **other})


@pytest.mark.parametrize(
    "sick",
    [
        readings(),
        readings(row_sum_error=1e-3),
        readings(sample_max=1.001),
        readings(row_sum_error=5e-2, softmax_dtype="bfloat16"),
        readings(row_sum_error=1e-2, fits_float16=1.0),
    ],
)
def test_fires(sick: Readings) -> None:
    finding = ProbabilitiesAsLogits().check(sick)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC404", "softmax-before-loss", "error")
    assert "optax.ctc_loss applies softmax itself" in finding.message
    assert "remove the softmax" in finding.fix


@pytest.mark.parametrize(
    "healthy",
    [
        readings(expects="log_probs"),
        readings(sample_min=-1e-6),
        readings(sample_max=1.0011),
        readings(row_sum_error=1.1e-3),
        readings(row_sum_error=np.nan),
        readings(sample_min=np.nan, sample_max=np.nan, row_sum_error=np.nan),
        readings(sample_min=np.inf, sample_max=-np.inf),
    ],
)
def test_silent(healthy: Readings) -> None:
    assert ProbabilitiesAsLogits().check(healthy) is None


def test_real_calls() -> None:
    (finding,) = findings(**of_optax(jax.nn.softmax(LOGITS), **CALL))
    assert finding.code == "CTC404"
    sigmoid = 1 / (1 + np.exp(-LOGITS))
    for healthy in (LOGITS, jax.nn.log_softmax(LOGITS), sigmoid, np.zeros_like(LOGITS)):
        assert findings(**of_optax(healthy, **CALL)) == []
