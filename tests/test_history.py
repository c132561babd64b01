"""What a guard remembers of a run."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from ctcguard.call import CTCCall, ctc_call
from ctcguard.history import CALLS, COLUMNS, EVERY, LENGTH_CALLS, History
from ctcguard.judge import facts
from ctcguard.probes import CONTRACT, DISTRIBUTION, measure, unpack
from ctcguard.readings import Readings
from tests.reference.ctc import loss

CLASSES = 5
ROWS = ((1, 1), (2, 3))


def call(frames: int = 12, **other: Any) -> CTCCall:
    values = {
        "log_probs": np.full((2, frames, CLASSES), -np.log(CLASSES)),
        "targets": np.asarray(ROWS),
        "input_lengths": np.asarray([frames, frames - 2]),
        "target_lengths": np.asarray([2, 2]),
        "blank": 0,
    }
    return ctc_call(**{**values, **other})


def measured(given: CTCCall) -> Readings:
    return Readings({**facts(given), **unpack(*measure(given, CONTRACT + DISTRIBUTION))})


def uniform_losses(frames: int = 12) -> np.ndarray:
    rows = [np.full((length, CLASSES), -np.log(CLASSES)).tolist() for length in (frames, frames - 2)]
    return np.asarray([loss(row, labels, 0) for row, labels in zip(rows, ROWS, strict=True)])


def added(history: History, given: CTCCall, step: int = 0) -> bool:
    return history.add(step, measured(given))


def test_a_row_of_a_uniform_output() -> None:
    history, losses = History(), uniform_losses()
    added(history, call(losses=losses), step=7)
    found = {name: float(values[-1]) for name, values in history.columns().items()}
    assert found == {
        "step": 7,
        "frames": 12,
        "input_length_max": 12,
        "loss_nats": pytest.approx(np.median(losses)),
        "loss_nats_per_frame": pytest.approx(np.median(losses / [12, 10])),
        "uniform_gap": pytest.approx(0, abs=1e-9),
        "blank_fraction": pytest.approx(0.2),
        "top_class": 0,
        "top_fraction": pytest.approx(0.2),
        "labels": 2,
    }


def test_the_gap_is_a_share_of_the_uniform_loss() -> None:
    history = History()
    added(history, call(losses=uniform_losses() * 0.9))
    assert history.columns()["uniform_gap"][0] == pytest.approx(0.1)


@pytest.mark.parametrize("unknown", [{"losses": None}, {"input_lengths": np.asarray([1, 1]), "losses": np.ones(2)}])
def test_what_was_not_measured_is_nan(unknown: dict[str, Any]) -> None:
    history = History()
    added(history, call(**unknown))
    assert math.isnan(history.columns()["uniform_gap"][0])


def test_it_is_bounded_and_looked_at_every_sixteenth_call() -> None:
    history, given = History(), call(losses=np.ones(2))
    readings = measured(given)
    due = [history.add(step, readings) for step in range(CALLS + 40)]
    assert [number for number, look in enumerate(due, start=1) if look][:2] == [EVERY, 2 * EVERY]
    steps = history.columns()["step"]
    assert (len(steps), steps[0], steps[-1]) == (CALLS, 40, CALLS + 39)


def test_nothing_remembered_is_empty_columns() -> None:
    assert {name: values.shape for name, values in History().columns().items()} == dict.fromkeys(COLUMNS, (0,))


def test_lengths_of_the_last_calls() -> None:
    history = History()
    for frames in range(10, 10 + LENGTH_CALLS + 3):
        given = call(frames)
        lengths = history.add_lengths(measured(given))
    assert (len(lengths), lengths[0], lengths[-1]) == (LENGTH_CALLS, (13, 13), (44, 44))


def test_it_survives_a_checkpoint() -> None:
    history, other = History(), History()
    for step in range(20):
        given = call(losses=np.ones(2) * step)
        history.add_lengths(measured(given))
        added(history, given, step)
    other.load_state_dict(json.loads(json.dumps(history.state_dict())))
    for name, values in history.columns().items():
        np.testing.assert_array_equal(values, other.columns()[name], err_msg=name)
    given = call()
    assert other.add_lengths(measured(given)) == history.add_lengths(measured(given))
    assert [added(other, given) for _ in range(EVERY)] == [added(history, given) for _ in range(EVERY)]
