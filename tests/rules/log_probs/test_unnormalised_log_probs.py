"""CTC402."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ctcguard import diagnose
from ctcguard.finding import Severity
from ctcguard.provenance import UNKNOWN, Provenance, Step
from ctcguard.readings import Readings
from ctcguard.rules.log_probs.unnormalised_log_probs import UnnormalisedLogProbs
from tests.reference.calls import of_torch


def readings(low: float, high: float, dtype: str = "float32", **other: Any) -> Readings:
    values = {
        "expects": "log_probs",
        "softmax_dtype": dtype,
        "logsumexp_min": low,
        "logsumexp_max": high,
        "fits_bfloat16": 0.0,
        "fits_float16": 0.0,
        "sample_min": -20.0,
        "sample_max": -0.1,
        "row_sum_error": 30.0,
        "frames": 50,
        "batch": 4,
        "logsumexp_time_abs_max": 3.0,
        "logsumexp_batch_abs_max": 3.0,
        "provenance": UNKNOWN,
    }
    return Readings({**values, **other})


@pytest.mark.parametrize(
    "healthy",
    [
        readings(-7e-6, 7e-6),
        readings(-1e-3, 1e-3),
        readings(-1e-3, 1e-3, dtype="float64"),
        readings(-1e-2, 2.4e-3, dtype="float16"),
        readings(-1.9e-2, 5e-2, dtype="bfloat16"),
        readings(-5e-2, 5e-2, fits_bfloat16=1.0),
        readings(-1e-2, 1e-2, fits_float16=1.0),
        readings(3.0, 9.0, expects="logits"),
    ],
)
def test_healthy(healthy: Readings) -> None:
    assert UnnormalisedLogProbs().check(healthy) is None


@pytest.mark.parametrize(
    ("sick", "severity", "said"),
    [
        (readings(-1.01e-3, 0), Severity.INFORMATION, "e^-0.00101"),
        (readings(0, 1e-2), Severity.INFORMATION, "limit ±0.001 nats for float32"),
        (readings(0, 1.01e-2), Severity.ERROR, "e^0.0101"),
        (readings(-3.1, 2.9), Severity.ERROR, "e^-3.1"),
        (readings(0, 1.01e-2, dtype="float16"), Severity.ERROR, "limit ±0.01 nats for float16"),
        (readings(0, 5.01e-2, dtype="bfloat16"), Severity.ERROR, "limit ±0.05 nats for bfloat16"),
        (readings(0, np.inf), Severity.ERROR, "e^inf"),
        (readings(-np.inf, 0), Severity.ERROR, "e^-inf"),
        (readings(np.nan, np.nan), Severity.ERROR, "e^nan"),
    ],
)
def test_fires(sick: Readings, severity: Severity, said: str) -> None:
    finding = UnnormalisedLogProbs().check(sick)
    assert finding is not None
    assert (finding.code, finding.severity) == ("CTC402", severity)
    assert said in finding.message


def steps(*steps: Step) -> Provenance:
    return Provenance(steps, reaches_head=True)


SOFTMAX = Step("log_softmax", axis=2, class_axis=2, shape=(4, 50, 20))
PROBABILITIES = {"sample_min": 0.0, "sample_max": 1.0, "row_sum_error": 0.0}


@pytest.mark.parametrize(
    ("other", "cause", "evidence", "fix"),
    [
        (PROBABILITIES, "probabilities", "rows sum to 1", "log_softmax(x, -1) instead of softmax(x, -1)"),
        (
            {"provenance": steps(Step("linear"), Step("log_softmax", axis=1, class_axis=2, shape=(4, 50, 20)))},
            "wrong-axis",
            "log_softmax ran over axis 1 of (4, 50, 20), the classes are axis 2",
            "dim=-1",
        ),
        ({"logsumexp_time_abs_max": 1e-4}, "wrong-axis", "over the time axis", "over the classes"),
        ({"logsumexp_batch_abs_max": 1e-4}, "wrong-axis", "over the batch axis", "over the classes"),
        (
            {"provenance": steps(Step("linear"), SOFTMAX, Step("divide"), Step("transpose"))},
            "altered-after-softmax",
            "came: divide",
            "apply divide to the logits",
        ),
        ({"provenance": steps(Step("linear"), Step("transpose"))}, "raw-logits", "no softmax", "log_softmax(x, -1)"),
        ({"sample_max": 4.2}, "raw-logits", "values reach 4.2", "applies no softmax itself"),
        ({}, "altered-after-softmax", "all values are ≤ 0", "nothing in between"),
        ({"logsumexp_min": np.nan, "logsumexp_max": np.nan}, "not-a-number", "NaN", "CTC403"),
    ],
)
def test_each_cause(other: dict[str, Any], cause: str, evidence: str, fix: str) -> None:
    finding = UnnormalisedLogProbs().check(readings(-3.0, 3.0).with_values(other))
    assert finding is not None
    assert finding.cause == cause
    assert evidence in finding.evidence
    assert fix in finding.fix


@pytest.mark.parametrize(
    "other", [{"frames": 1, "logsumexp_time_abs_max": 0.0}, {"batch": 1, "logsumexp_batch_abs_max": 0.0}]
)
def test_an_axis_of_length_one_is_no_evidence(other: dict[str, Any]) -> None:
    finding = UnnormalisedLogProbs().check(readings(-3.0, 3.0).with_values(other))
    assert finding is not None
    assert finding.cause == "altered-after-softmax"


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (lambda x: x, "raw-logits"),
        (lambda x: x.softmax(-1), "probabilities"),
        (lambda x: x.bfloat16().softmax(-1).float(), "probabilities"),
        (lambda x: x.log_softmax(0), "wrong-axis"),
        (lambda x: x.log_softmax(1), "wrong-axis"),
        (lambda x: x.log_softmax(-1) / 0.5, "altered-after-softmax"),
        (lambda x: x.log_softmax(-1).clamp(min=-2), "altered-after-softmax"),
        (lambda x: x.log_softmax(-1) - 0.2, "altered-after-softmax"),
    ],
)
@pytest.mark.parametrize("classes", [5, 500])
def test_real_mistakes(wrong: Callable[[torch.Tensor], torch.Tensor], cause: str, classes: int) -> None:
    logits = 3 * torch.randn(40, 4, classes, generator=torch.Generator().manual_seed(0))
    call = {
        "targets": torch.ones(4, 3, dtype=torch.long),
        "input_lengths": [40, 30, 20, 40],
        "target_lengths": [3, 1, 2, 0],
    }
    verdict = diagnose(**of_torch(wrong(logits), **call))[0]
    assert (verdict.code, verdict.cause, verdict.root.severity) == ("CTC402", cause, "error")
    assert {f.code for f in verdict.also} <= {"CTC401", "CTC501", "CTC504"}
