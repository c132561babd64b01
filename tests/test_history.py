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


def constant_losses(symbols: int = 3) -> np.ndarray:
    """Of the best of many outputs that are the same in every frame: a blank, and symbols that share the rest."""
    frames = [[np.log(p), *np.full(symbols, np.log((1 - p) / symbols))] for p in np.linspace(0.02, 0.98, 97)]
    return np.asarray(
        [
            min(loss([frame] * length, labels, 0) for frame in frames)
            for length, labels in zip((12, 10), ROWS, strict=True)
        ]
    )


def added(history: History, given: CTCCall, step: int = 0) -> bool:
    return history.add(step, measured(given))


def test_a_row_of_a_uniform_output() -> None:
    history, losses = History(), uniform_losses()
    added(history, call(losses=losses, unknown=1), step=7)
    found = {name: float(values[-1]) for name, values in history.columns().items()}
    assert found == {
        "step": 7,
        "frames": 12,
        "input_length_max": 12,
        "loss_nats": pytest.approx(np.median(losses)),
        "loss_nats_per_frame": pytest.approx(np.median(losses / [12, 10])),
        "uniform_ratio": pytest.approx(1),
        "blank_fraction": pytest.approx(0.2),
        "top_class": 0,
        "top_fraction": pytest.approx(0.2),
        "labels": 2,
        "input_length_mean": 11,
        "constant_ratio": pytest.approx(np.median(losses / constant_losses()), rel=0.05),
        "unknown_fraction": 0.5,
        "fingerprint": pytest.approx(float("nan"), nan_ok=True),
        "label_room": 2,
        "tail_label": pytest.approx(float("nan"), nan_ok=True),
        "tail_run_spread": pytest.approx(float("nan"), nan_ok=True),
    }


def test_transcripts_that_are_alike_and_end_alike() -> None:
    history = History()
    added(history, call(targets=np.asarray([[2, 1], [1, 1]])))
    added(history, call(targets=np.asarray([[2, 1], [2, 1]])))
    columns = history.columns()
    assert columns["tail_label"].tolist() == [1, 1]
    assert columns["tail_run_spread"].tolist() == [1, 0]
    assert np.isnan(columns["fingerprint"]).tolist() == [True, False]


def test_the_ratio_is_a_share_of_the_uniform_loss() -> None:
    history = History()
    added(history, call(losses=uniform_losses() * 0.9))
    assert history.columns()["uniform_ratio"][0] == pytest.approx(0.9)


@pytest.mark.parametrize("unknown", [{"losses": None}, {"input_lengths": np.asarray([1, 1]), "losses": np.ones(2)}])
def test_what_was_not_measured_is_nan(unknown: dict[str, Any]) -> None:
    history = History()
    added(history, call(**unknown))
    assert math.isnan(history.columns()["uniform_ratio"][0])
    assert math.isnan(history.columns()["constant_ratio"][0])


def ratio_of(history: History) -> float:
    return float(history.columns()["constant_ratio"][-1])


def test_a_constant_output_shares_the_symbols_that_the_run_has_shown() -> None:
    """The more symbols, the more it loses, and the lower the same loss is as a share of that."""
    few, many, all_ = History(), History(), History()
    added(few, call(losses=np.ones(2), targets=np.ones((2, 2), dtype=int)))
    for targets in ([[4, 1], [1, 1]], [[1, 1], [1, 1]]):
        added(many, call(losses=np.ones(2), targets=np.asarray(targets)))
    added(all_, call(losses=np.ones(2), targets=np.asarray([[4, 4], [4, 4]])))
    assert ratio_of(few) > ratio_of(many) == ratio_of(all_)
    restored = History()
    restored.load_state_dict(json.loads(json.dumps(many.state_dict())))
    added(restored, call(losses=np.ones(2), targets=np.ones((2, 2), dtype=int)))
    assert ratio_of(restored) == ratio_of(many)


@pytest.mark.parametrize("blank", [0, 4])
def test_the_blank_is_no_symbol(blank: int) -> None:
    """Labels 1 to 4 with blank 0, or 0 to 3 with blank 4, are four symbols."""
    history = History()
    targets = np.asarray([[1, 4], [2, 3]]) - (blank == 4)
    added(history, call(losses=np.ones(2), targets=targets, blank=blank))
    assert ratio_of(history) == pytest.approx(np.median(1 / constant_losses(4)), rel=0.15)


def test_utterances_without_labels_or_without_an_alignment_do_not_count() -> None:
    other = History()
    added(other, call(losses=np.ones(2)))  # shows that there are three symbols
    added(other, call(losses=np.asarray([3.0, 99.0]), target_lengths=np.asarray([2, 0])))
    assert ratio_of(other) == pytest.approx(3 / constant_losses()[0], rel=0.05)
    added(other, call(losses=np.asarray([3.0, np.inf]), input_lengths=np.asarray([12, 1])))
    assert ratio_of(other) == pytest.approx(3 / constant_losses()[0], rel=0.05)
    added(other, call(losses=np.asarray([3.0, 3.0]), target_lengths=np.zeros(2, dtype=int)))
    assert math.isnan(ratio_of(other))
    assert not math.isnan(other.columns()["uniform_ratio"][-1])


@pytest.mark.parametrize("losses", [[1.0, 5.0], [np.inf, 1.0], [np.nan, 1.0], [-np.inf, np.inf]])
def test_medians_are_those_of_numpy(losses: list[float]) -> None:
    history = History()
    with np.errstate(invalid="ignore"):
        added(history, call(losses=np.asarray(losses)))
        assert history.columns()["loss_nats"][0] == pytest.approx(np.median(losses), nan_ok=True)


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
        history.add_lengths(given.frames, max(given.input_lengths))
    lengths = history.lengths
    assert (len(lengths), lengths[0], lengths[-1]) == (LENGTH_CALLS, (13, 13), (44, 44))


def test_it_survives_a_checkpoint() -> None:
    history, other = History(), History()
    for step in range(20):
        given = call(losses=np.ones(2) * step)
        history.add_lengths(given.frames, max(given.input_lengths))
        added(history, given, step)
    other.load_state_dict(json.loads(json.dumps(history.state_dict())))
    for name, values in history.columns().items():
        np.testing.assert_array_equal(values, other.columns()[name], err_msg=name)
    given = call()
    assert other.lengths == history.lengths
    assert [added(other, given) for _ in range(EVERY)] == [added(history, given) for _ in range(EVERY)]
