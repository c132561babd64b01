"""CTC502."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ctcguard import diagnose
from ctcguard.readings import Readings
from ctcguard.rules.loss.non_finite_loss import NonFiniteLoss
from tests.reference.calls import findings, of_optax, of_torch


def readings(*losses: float, **other: Any) -> Readings:
    return Readings({"losses": np.asarray(losses), **other})


@pytest.mark.parametrize("healthy", [readings(), readings(0.0), readings(-1e-9, 1e30), readings(1e5, -40.0)])
def test_finite_is_healthy(healthy: Readings) -> None:
    assert NonFiniteLoss().check(healthy) is None


@pytest.mark.parametrize(
    ("sick", "cause", "said", "fix"),
    [
        (readings(1.0, np.nan), "nan", "1 of 2 are NaN", "features of utterance 1"),
        (readings(np.inf, 1.0), "infinite", "1 of 2 are inf", "utterance 0: frames >= labels"),
        (readings(-np.inf), "infinite", "1 of 1 are −inf", "utterance 0"),
        (readings(np.inf, np.nan, 2), "nan", "2 of 3 are NaN, inf", "utterance 0, 1"),
        (
            readings(np.nan, non_finite_padding_frames=np.asarray([3.0])),
            "padded-frames",
            "are NaN",
            "where(valid, x, 0)",
        ),
        (readings(np.nan, np.nan, non_finite_padding_frames=np.asarray([3.0, 0])), "nan", "2 of 2", "features"),
        (readings(np.inf, non_finite_padding_frames=np.asarray([3.0])), "infinite", "are inf", "transcript"),
    ],
)
def test_fires(sick: Readings, cause: str, said: str, fix: str) -> None:
    finding = NonFiniteLoss().check(sick)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC502", cause, "error")
    assert said in finding.message
    assert fix in finding.fix


def test_names_the_utterances() -> None:
    finding = NonFiniteLoss().check(readings(1.0, np.nan, np.inf, -np.inf))
    assert finding is not None
    assert [(item.index, item.note) for item in finding.utterances] == [
        (1, "loss nan"),
        (2, "loss inf"),
        (3, "loss -inf"),
    ]
    assert finding.affected == {1, 2, 3}


def test_too_few_frames_are_the_root_of_an_infinite_loss() -> None:
    given = {"targets": torch.tensor([[1, 1], [1, 2]]), "input_lengths": (2, 2), "target_lengths": (2, 2)}
    (verdict,) = diagnose(**of_torch(torch.randn(9, 2, 4).log_softmax(-1), **given))
    assert (verdict.code, verdict.also[0].code, verdict.also[0].affected) == ("CTC301", "CTC502", {0})


def test_optax_reads_padded_frames() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 9, 5)).astype(np.float32)
    logits[1, 7:] = np.nan
    given = {"labels": np.asarray([[1, 2], [3, 1]]), "input_lengths": [9, 7], "target_lengths": [2, 2]}
    (finding,) = findings(**of_optax(logits, **given))
    assert (finding.code, finding.cause, finding.affected) == ("CTC502", "padded-frames", {1})
    logits[1, 7:] = 0
    assert findings(**of_optax(logits, **given)) == []
