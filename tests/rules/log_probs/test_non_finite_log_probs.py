"""CTC403."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ctcguard import diagnose
from ctcguard.provenance import Provenance, Step
from ctcguard.readings import Readings
from ctcguard.rules.log_probs.non_finite_log_probs import NonFiniteLogProbs
from tests.reference.calls import findings, of_optax, of_torch

LOG = Provenance((Step("linear"), Step("softmax"), Step("log")), reaches_head=True)
MASKED = Provenance((Step("linear"), Step("masked_fill"), Step("log_softmax")), reaches_head=True)


def readings(**other: Any) -> Readings:
    columns = {
        "non_finite_frames": [0, 0, 0],
        "score_max": [-0.1, -0.1, -0.1],
        "input_lengths": [20, 20, 10],
        "target_lengths": [2, 2, 2],
        "adjacent_repeats": [0, 0, 0],
        "losses": [5.0, 5.0, 5.0],
        "frame_max_sum": [-30.0, -30.0, -30.0],
        **other,
    }
    ready = {k: np.asarray(v, float) if isinstance(v, list) else v for k, v in columns.items()}
    return Readings({"expects": "log_probs", "minus_inf_fraction": 0.0, "frames": 20, **ready})


def frames(bad: list[float], largest: list[float], **other: Any) -> Readings:
    return readings(non_finite_frames=bad, score_max=largest, **other)


def test_healthy() -> None:
    assert NonFiniteLogProbs().check(readings()) is None
    assert NonFiniteLogProbs().check(readings(minus_inf_fraction=0.5)) is None


def test_runs_on_its_wants_alone() -> None:
    few = {"expects": "log_probs", "score_max": np.asarray([-1.0]), "non_finite_frames": np.asarray([0.0])}
    assert NonFiniteLogProbs().check(Readings(few)) is None
    finding = NonFiniteLogProbs().check(Readings({**few, "non_finite_frames": np.asarray([3.0])}))
    assert finding is not None
    assert finding.utterances[0].note.startswith("3 frames hold")


@pytest.mark.parametrize(
    ("sick", "cause", "note", "fix"),
    [
        (frames([0, 1, 0], [-1, np.nan, -1]), "non-finite-features", "1 of 20 frames hold NaN", "features[1]"),
        (frames([0, 20, 3], [-1, np.nan, np.nan]), "non-finite-features", "20 of 20 frames hold NaN", "features[1]"),
        (frames([np.nan, 0, 0], [np.nan, -1, -1]), "non-finite-features", "nan of 20 frames hold NaN", "features[0]"),
        (frames([20, 20, 10], [np.nan] * 3), "whole-batch", "20 of 20 frames hold NaN", "model.parameters()"),
        (frames([0, 0, 4], [-1, -1, np.inf]), "overflow", "4 of 10 frames hold +inf", "float32"),
        (frames([0, 2, 0], [-1, -1, -1]), "masking", "2 of 20 frames hold nothing but −inf", "input_lengths"),
    ],
)
def test_bad_frames(sick: Readings, cause: str, note: str, fix: str) -> None:
    finding = NonFiniteLogProbs().check(sick)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC403", cause, "error")
    assert finding.utterances[0].note == note
    assert fix in finding.fix
    assert finding.message.startswith("log-probs must be finite, but valid frames of ")


def test_the_message_says_logits_where_they_are_expected() -> None:
    finding = NonFiniteLogProbs().check(frames([0, 1, 0], [-1, np.nan, -1], expects="logits"))
    assert finding is not None
    assert finding.message == "logits must be finite, but valid frames of 1 of 3 utterances hold NaN"


@pytest.mark.parametrize(
    ("given", "cause", "evidence"),
    [
        ({"minus_inf_fraction": 0.25, "provenance": LOG}, "log-of-softmax", "softmax → log"),
        ({"minus_inf_fraction": 0.25, "provenance": MASKED}, "masking", "masked_fill"),
        ({"minus_inf_fraction": 0.25}, "log-of-softmax", "25.0% of the sampled values"),
        ({}, "masking", "add up to it"),
    ],
)
def test_minus_inf_on_every_alignment(given: dict[str, Any], cause: str, evidence: str) -> None:
    finding = NonFiniteLogProbs().check(readings(losses=[5.0, np.inf, 5.0], **given))
    assert finding is not None
    assert (finding.cause, finding.affected) == (cause, {1})
    assert evidence in finding.evidence
    assert "1 of 3 utterances have frames enough, but −inf" in finding.message


@pytest.mark.parametrize(
    "other",
    [
        {"target_lengths": [2, 21, 2]},
        {"adjacent_repeats": [0, 19, 0]},
        {"input_lengths": [20, 21, 10]},
        {"target_lengths": [2, -1, 2]},
        {"out_of_range_labels": [0, 1, 0]},
        {"negative_labels": [0, 1, 0]},
        {"alignment_cost": [np.inf, 40.0, np.inf]},
    ],
)
def test_an_infinite_loss_with_another_reason_is_not_its_business(other: dict[str, Any]) -> None:
    assert NonFiniteLogProbs().check(readings(losses=[5.0, np.inf, 5.0], minus_inf_fraction=0.5, **other)) is None


@pytest.mark.parametrize(
    ("best", "minus_inf", "zero_infinity", "fires"),
    [
        (-10.0, 0.1, True, True),  # 10 - ln binom(22, 4) = 1.1 > 1
        (-9.8, 0.1, True, False),
        (-10.0, 0.0, True, False),
        (-10.0, 0.1, False, False),
        (np.nan, 0.1, True, False),
    ],
)
def test_a_hidden_infinity(best: float, minus_inf: float, zero_infinity: bool, fires: bool) -> None:
    given = {"minus_inf_fraction": minus_inf, "zero_infinity": zero_infinity, "frame_max_sum": [best, -30.0, -30.0]}
    finding = NonFiniteLogProbs().check(readings(losses=[0.0, 5.0, 5.0], **given))
    assert (finding is not None) == fires


def torch_call(**options: Any) -> dict[str, Any]:
    return {"targets": torch.tensor([[1, 2], [3, 1]]), "input_lengths": (20, 20), "target_lengths": (2, 2), **options}


def test_log_of_softmax_that_underflows() -> None:
    logits = torch.zeros(20, 2, 4)
    logits[:, 1] = torch.tensor([0.0, 900.0, 0.0, 0.0])  # utterance 1 is certain of class 1, its labels are 3 and 1
    for loss, options in ((np.inf, {}), (0.0, {"zero_infinity": True})):
        call = of_torch(logits.softmax(-1).log(), **torch_call(**options))
        assert call["losses"][1] == loss
        assert [f.code for f in findings(**call)][:1] == (["CTC403"] if loss else [])
        assert findings(**of_torch(logits.log_softmax(-1), **torch_call(**options))) == []


def test_log_of_softmax_hidden_by_zero_infinity_while_the_model_is_unsure() -> None:
    logits = torch.zeros(20, 2, 4)
    logits[:, 1, 3] = -900.0
    call = of_torch(logits.softmax(-1).log(), **torch_call(zero_infinity=True))
    root = diagnose(**call)[0].root
    assert (root.code, root.cause, root.affected) == ("CTC403", "log-of-softmax", {1})


def test_masked_classes_fire_only_when_a_target_needs_them() -> None:
    log_probs = torch.randn(20, 2, 5).masked_fill(torch.arange(5) == 4, -torch.inf).log_softmax(-1)
    assert findings(**of_torch(log_probs, **torch_call())) == []
    needed = of_torch(log_probs, **torch_call(targets=torch.tensor([[1, 2], [4, 1]])))
    (verdict,) = diagnose(**needed)
    assert (verdict.code, [f.code for f in verdict.also]) == ("CTC403", ["CTC502"])
    assert verdict.root.affected == {1}


def test_nan_beyond_the_lengths_is_silent() -> None:
    log_probs = torch.randn(20, 2, 4).log_softmax(-1)
    log_probs[12:, 1] = torch.nan
    assert findings(**of_torch(log_probs, **torch_call(input_lengths=(20, 12)))) == []


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_one_bad_feature_names_its_utterance(bad: float) -> None:
    logits = torch.randn(20, 2, 4)
    logits[7, 1, 2] = bad
    (verdict,) = diagnose(**of_torch(logits.log_softmax(-1), **torch_call()))
    assert (verdict.code, verdict.cause, verdict.root.affected) == ("CTC403", "non-finite-features", {1})
    assert {f.code for f in verdict.also} == {"CTC401", "CTC402", "CTC502"}


def test_minus_inf_among_the_logits_of_optax() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 20, 5)).astype(np.float32)
    given = {"labels": np.asarray([[1, 2], [3, 1]]), "input_lengths": [20, 20], "target_lengths": [2, 2]}
    assert findings(**of_optax(logits, **given)) == []
    logits[1, :, 4] = -np.inf
    found = findings(**of_optax(logits, **given))
    assert [(f.code, f.cause) for f in found] == [("CTC403", "masking"), ("CTC502", "nan")]
    assert found[0].affected == {1}
