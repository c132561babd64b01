"""CTC401."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ctcguard.finding import Severity
from ctcguard.readings import Readings
from ctcguard.rules.log_probs.positive_log_prob import PositiveLogProb


def readings(*score_max: float, dtype: str = "float32", **other: Any) -> Readings:
    values = {"expects": "log_probs", "softmax_dtype": dtype, "score_max": np.asarray(score_max)}
    return Readings({**values, "fits_bfloat16": 0.0, "fits_float16": 0.0, **other})


@pytest.mark.parametrize(
    "healthy",
    [
        readings(-0.1, 0.0, -np.inf),
        readings(9.99e-4),
        readings(1e-3),
        readings(1e-3, dtype="float64"),
        readings(1e-2, dtype="float16"),
        readings(5e-2, dtype="bfloat16"),
        readings(5e-2, fits_bfloat16=1.0),
        readings(1e-2, fits_float16=1.0),
        readings(13.0, expects="logits"),
    ],
)
def test_healthy(healthy: Readings) -> None:
    assert PositiveLogProb().check(healthy) is None


@pytest.mark.parametrize(
    ("sick", "severity"),
    [
        (readings(1.01e-3), Severity.INFORMATION),
        (readings(1e-2), Severity.INFORMATION),
        (readings(1.01e-2), Severity.ERROR),
        (readings(1.01e-2, dtype="float16"), Severity.ERROR),
        (readings(5.01e-2, dtype="bfloat16"), Severity.ERROR),
        (readings(np.inf), Severity.ERROR),
    ],
)
def test_fires_above_the_limit_and_is_information_up_to_the_hint(sick: Readings, severity: Severity) -> None:
    finding = PositiveLogProb().check(sick)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC401", "positive", severity)


def test_nan_fires_and_points_to_its_cause() -> None:
    finding = PositiveLogProb().check(readings(-1.0, np.nan))
    assert finding is not None
    assert (finding.cause, finding.severity, finding.affected) == ("not-a-number", Severity.ERROR, {1})
    assert "CTC403" in finding.fix


def test_names_the_worst_utterances_first() -> None:
    finding = PositiveLogProb().check(readings(0.5, -1, 13.25, 2, 3, 4, 5))
    assert finding is not None
    assert [item.index for item in finding.utterances] == [2, 6, 5, 4, 3]
    assert finding.affected == {0, 2, 3, 4, 5, 6}
    assert finding.utterances[0].note == "reaches 13.2"
    assert finding.message == "a log-prob must not be above 0 but reaches 13.2 (limit 0.001 for float32)"
    assert "log_softmax(x, -1)" in finding.fix


def test_the_limit_can_be_set() -> None:
    assert PositiveLogProb(float32_nats=1.0).check(readings(0.9)) is None


def forward(*forward_max: float, frames: float = 100, dtype: str = "float32") -> Readings:
    """Of a loss that is given logits and returns its forward log-probs; the logits themselves may be positive."""
    lengths = np.full(len(forward_max), frames)
    return readings(
        *[13.0] * len(forward_max),
        dtype=dtype,
        expects="logits",
        forward_max=np.asarray(forward_max),
        input_lengths=lengths,
    )


@pytest.mark.parametrize(
    "healthy",
    [
        forward(-3.0, -0.1, 0.0, -np.inf),
        forward(1e-3),
        forward(1e-3, frames=1000),
        forward(3e-3, frames=3000),
        forward(1.0, dtype="float16"),
        forward(0.01, frames=0, dtype="float16"),
        forward(5.0, dtype="bfloat16"),
        forward(np.nan, np.inf),  # they are in the loss too: CTC502
    ],
)
def test_forward_log_probs_up_to_their_rounding_are_healthy(healthy: Readings) -> None:
    assert PositiveLogProb().check(healthy) is None


@pytest.mark.parametrize(
    ("sick", "limit"),
    [
        (forward(1.01e-3), 1e-3),
        (forward(1.01e-3, frames=1000), 1e-3),
        (forward(3.01e-3, frames=3000), 3e-3),
        (forward(1.01, dtype="float16"), 1.0),
        (forward(0.0101, frames=0, dtype="float16"), 0.01),
        (forward(5.01, dtype="bfloat16"), 5.0),
    ],
)
def test_a_free_symbol(sick: Readings, limit: float) -> None:
    finding = PositiveLogProb().check(sick)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC401", "free-symbol", Severity.ERROR)
    assert finding.readings["limit_nats"] == pytest.approx(limit)
    assert "every label is a class of the head, and not the blank" in finding.fix


def test_free_symbols_are_named_worst_first() -> None:
    finding = PositiveLogProb().check(forward(-1.0, 0.5, np.nan, 2.0))
    assert finding is not None
    assert ([item.index for item in finding.utterances], finding.affected) == ([3, 1], {1, 3})
    assert finding.utterances[0].note == "reaches 2"
    assert finding.message == "a forward log-prob must not be above 0 but reaches 2 (limit 0.001 for float32)"
    assert "e^2:" in finding.evidence


def test_without_forward_log_probs_logits_are_not_judged() -> None:
    assert PositiveLogProb().check(readings(13.0, expects="logits")) is None
