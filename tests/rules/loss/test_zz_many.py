"""CTC504."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctcguard import diagnose
from ctcguard.readings import Readings
from ctcguard.rules.loss.implausible_loss import ImplausibleLoss
from tests.reference.calls import findings, of_optax, of_torch

LEAST = 40 - math.log(math.comb(22, 4))  # 20 frames, 2 labels, best path 40 nats: 31.10
MOST = 60.0


def readings(*losses: float, **other: Any) -> Readings:
    columns: dict[str, Any] = {
        "alignment_cost": MOST,
        "frame_max_sum": -40.0,
        "input_lengths": 20.0,
        "target_lengths": 2.0,
        "adjacent_repeats": 0.0,
        **other,
    }
    ready = {k: np.full(len(losses), v) if isinstance(v, float) else v for k, v in columns.items()}
    return Readings({"losses": np.asarray(losses), "blank": 28, "dtype": "float32", **ready})


@pytest.mark.parametrize(
    "loss",
    [
        LEAST,
        LEAST - 0.0139,  # slack: 0.01 + 1e-4 × 40
        MOST,
        MOST + 0.0159,
        45.0,
        60.125,  # 11 significant bits: may have been rounded to half precision
        np.nan,
        np.inf,
        -np.inf,
    ],
)
def test_healthy(loss: float) -> None:
    assert ImplausibleLoss().check(readings(50.3, loss)) is None


@pytest.mark.parametrize(
    ("loss", "cause", "said", "fix"),
    [
        (LEAST - 0.0141, "below-all-alignments", "must be at least 31.1 nats, but is 31.09", "log_probs.double()"),
        (-3.3, "below-all-alignments", "must be at least 31.1 nats, but is -3.3", "guard.observe"),
        (0.0, "zero-without-certainty", "must be at least 31.1 nats, but is 0", "zero_infinity"),
        (MOST + 0.0161, "above-one-alignment", "must be at most 60 nats, but is 60.02", "blank=28"),
        (100_000.3, "above-one-alignment", "must be at most 60 nats, but is 1e+05", "utterance 1"),
    ],
)
def test_fires(loss: float, cause: str, said: str, fix: str) -> None:
    finding = ImplausibleLoss().check(readings(50.3, loss, 50.3))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC504", cause, "error")
    assert (finding.affected, finding.utterances[0].index) == ({1}, 1)
    assert said in finding.message
    assert fix in finding.fix
    assert "allowed 31.1 to 60 nats" in finding.utterances[0].note


@pytest.mark.parametrize(
    "other",
    [
        {"dtype": "bfloat16"},
        {"dtype": "float16"},
        {"target_lengths": 21.0},
        {"adjacent_repeats": 19.0},
        {"out_of_range_labels": 1.0},
        {"negative_labels": 1.0},
        {"non_finite_frames": 1.0},
        {"frames": 19},
        {"frame_max_sum": np.nan, "alignment_cost": np.nan},
    ],
)
def test_nothing_is_said_where_no_bound_is_known(other: dict[str, Any]) -> None:
    assert ImplausibleLoss().check(readings(0.0, 1e6, **other)) is None


@pytest.mark.parametrize("cost", [np.inf, np.nan])
def test_without_an_alignment_only_the_lower_bound_is_known(cost: float) -> None:
    assert ImplausibleLoss().check(readings(1e6, alignment_cost=cost)) is None
    assert ImplausibleLoss().check(readings(1.0, alignment_cost=cost)) is not None


def test_the_worst_comes_first() -> None:
    finding = ImplausibleLoss().check(readings(62.3, 0.0, 45.3, 99.3))
    assert finding is not None
    assert [item.index for item in finding.utterances] == [3, 1, 0]
    assert finding.cause == "above-one-alignment"


def test_the_slack_grows_with_the_frames_and_can_be_set() -> None:
    long = {"input_lengths": 3000.0, "alignment_cost": 9000.0, "frame_max_sum": -9000.0}
    assert ImplausibleLoss().check(readings(9002.7, **long)) is None
    assert ImplausibleLoss().check(readings(9002.8, **long)) is not None
    assert ImplausibleLoss(slack_nats=1.0).check(readings(9002.8, **long)) is None


def test_losses_that_belong_to_other_utterances() -> None:
    """What a kernel gives that reads the labels from the wrong place."""
    torch.manual_seed(0)
    log_probs = (5 * torch.randn(50, 4, 20)).log_softmax(-1)
    call = of_torch(log_probs, torch.randint(1, 20, (4, 5)), [50, 30, 20, 10], [5] * 4)
    assert findings(**call) == []
    call["losses"] = call["losses"].flip(0)
    (verdict,) = diagnose(**call)
    assert (verdict.code, verdict.cause, verdict.root.affected) == ("CTC504", "above-one-alignment", {2, 3})


def trial(seed: int, frames: int, classes: int, scale: float, peaked: float) -> tuple[torch.Tensor, dict[str, Any]]:
    """Logits (time, batch, classes) with labels and lengths that go from empty to as tight as can be."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(frames, 3, classes, generator=generator)
    logits += peaked * torch.nn.functional.one_hot(torch.randint(classes, (frames, 3), generator=generator), classes)
    input_lengths = torch.randint(1, frames + 1, (3,), generator=generator)
    input_lengths[0] = frames
    target_lengths = torch.minimum(torch.randint(frames + 1, (3,), generator=generator), input_lengths)
    targets = torch.randint(1, classes, (3, frames), generator=generator)
    return logits, {"targets": targets, "input_lengths": input_lengths, "target_lengths": target_lengths}


trials = {
    "seed": st.integers(0, 2**31),
    "frames": st.integers(1, 300),
    "classes": st.sampled_from([2, 3, 10, 32, 500, 5000]),
    "scale": st.sampled_from([0.0, 0.1, 1.0, 10.0, 1000.0]),
    "peaked": st.sampled_from([0.0, 10.0, 200.0]),
}


@settings(max_examples=6000)
@given(**trials, dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
def test_no_healthy_call_of_torch_fires(dtype: torch.dtype, **of: Any) -> None:
    logits, call = trial(**of)
    log_probs = logits.to(dtype).log_softmax(-1)
    log_probs = log_probs if dtype is torch.float64 else log_probs.float()
    assert "CTC504" not in [finding.code for finding in findings(**of_torch(log_probs, **call))]


@settings(max_examples=25)
@given(**trials | {"frames": st.just(60), "classes": st.sampled_from([2, 32])})
def test_no_healthy_call_of_optax_fires(**of: Any) -> None:
    """Neither with the logits that it takes, nor with the log-probs that these mean and the loss that it gave."""
    logits, call = trial(**of)
    call["labels"] = call.pop("targets").numpy()
    for name in ("input_lengths", "target_lengths"):
        call[name] = call[name].numpy()
    given_to_optax = of_optax(logits.permute(1, 0, 2).numpy(), **call)
    assert "CTC504" not in [finding.code for finding in findings(**given_to_optax)]
    given_to_optax["log_probs"] = np.asarray(jax.nn.log_softmax(given_to_optax.pop("logits")))
    assert "CTC504" not in [finding.code for finding in findings(**given_to_optax)]


@pytest.mark.parametrize(("frames", "classes"), [(3000, 32), (3000, 2), (10_000, 5)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
def test_no_long_call_fires(frames: int, classes: int, scale: float) -> None:
    for labels in (0, 1, frames // 3):
        log_probs = (scale * torch.randn(frames, 1, classes)).log_softmax(-1)
        targets = torch.arange(labels)[None, :] % (classes - 1) + 1
        call = of_torch(log_probs, targets, [frames], [labels])
        assert "CTC504" not in [finding.code for finding in findings(**call)]


def test_a_drifting_sum_does_not_fire() -> None:
    """Adding the same number again and again rounds the same way each time: the worst found for float32."""
    for value in np.geomspace(1e-3, 1e3, 60, dtype=np.float32):
        log_probs = torch.full((3000, 1, 3), -float(value))
        call = of_torch(log_probs, torch.tensor([[1, 2]]), [3000], [1])
        assert "CTC504" not in [finding.code for finding in findings(**call)]
