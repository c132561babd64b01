"""CTC801."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ctcguard.finding import Severity
from ctcguard.readings import Readings
from ctcguard.rules.model.batch_leak import BatchLeak

LIMIT = 1e-4
SEEN = {"parting_place": "rnn (LSTM)", "parting_module": "LSTM", "parting_parent": "the model (CRNN)"}


def readings(*changes: float, **other: Any) -> Readings:
    return Readings({"neighbour_change": np.asarray(changes), "output_limit": LIMIT, "output_unit": "nats", **other})


@pytest.mark.parametrize("changes", [(0.0, 0.0), (LIMIT, 0.0), (0.99 * LIMIT,), ()])
def test_healthy(changes: tuple[float, ...]) -> None:
    assert BatchLeak().check(readings(*changes)) is None
    assert BatchLeak().check(readings(*changes, reshape=((4, 50, 20), (50, 4, 20)), **SEEN)) is None


@pytest.mark.parametrize("change", [1.01 * LIMIT, 3.0, float("inf"), float("nan")])
def test_fires(change: float) -> None:
    finding = BatchLeak().check(readings(0.0, change, LIMIT))
    assert finding is not None
    assert (finding.code, finding.severity, finding.cause) == ("CTC801", Severity.ERROR, "mixes-utterances")
    assert finding.affected == {1}
    assert "rounding (float32): at most 0.0001" in finding.message
    assert finding.utterances[0].note == f"changes by {change:.2g}"


def test_the_most_changed_first_and_the_unit_of_the_output() -> None:
    finding = BatchLeak().check(readings(0.2, 0.0, 0.7, output_unit="in the unit of its output"))
    assert finding is not None
    assert [utterance.index for utterance in finding.utterances] == [2, 0]
    assert "by up to 0.7 in the unit of its output" in finding.message
    assert finding.readings == {"neighbour_change": 0.7, "output_limit": LIMIT}


@pytest.mark.parametrize(
    ("other", "cause", "evidence", "fix"),
    [
        ({}, "mixes-utterances", "", "look through its forward"),
        (
            {**SEEN, "reshape": ((4, 50, 20), (50, 4, 20)), "parting_inside": True, "batch_first": False},
            "reshape-instead-of-transpose", "(4, 50, 20) into (50, 4, 20)", "instead of x.reshape(50, 4, 20)",
        ),
        (
            {**SEEN, "parting_inside": True, "batch_first": False, "batch_axis": 0},
            "wrong-batch-axis", "it has batch_first=False, but the batch is axis 0", "with batch_first=True",
        ),
        (
            {**SEEN, "parting_inside": True, "batch_first": True, "batch_axis": 1},
            "wrong-batch-axis", "first seen in rnn (LSTM)", "make it with batch_first=False instead of True",
        ),
        (
            {**SEEN, "parting_inside": True, "batch_first": True, "batch_axis": 0},
            "mixes-utterances", "first seen in rnn (LSTM): what it was given was the same", "look in rnn (LSTM)",
        ),
        (
            {**SEEN, "parting_inside": None, "batch_first": False, "batch_axis": 0},
            "mixes-utterances", "first seen in what rnn (LSTM) returns", "look in rnn (LSTM)",
        ),
        (
            {**SEEN, "parting_inside": False, "batch_first": False, "batch_axis": 0},
            "mixes-utterances", "in what rnn (LSTM) is given", "look before rnn (LSTM), in the model (CRNN)",
        ),
        (
            {"parting_place": "bn (BatchNorm1d)", "parting_module": "BatchNorm1d", "parting_inside": True},
            "normalisation-over-batch", "first seen in bn (BatchNorm1d)", "track_running_stats=True",
        ),
        (
            {"parting_place": "bn (BatchNorm1d)", "parting_module": "BatchNorm1d", "parting_inside": False},
            "mixes-utterances", "what bn (BatchNorm1d) is given", "before bn (BatchNorm1d), in the model",
        ),
    ],
)  # fmt: skip
def test_each_cause(other: dict[str, Any], cause: str, evidence: str, fix: str) -> None:
    finding = BatchLeak().check(readings(0.5, **other))
    assert finding is not None
    assert finding.cause == cause
    assert evidence in finding.evidence
    assert fix in finding.fix
