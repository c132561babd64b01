"""CTC601."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ctcguard import diagnose
from ctcguard.judge import judge
from ctcguard.probes.gradients import gradient_abs_max
from ctcguard.readings import Readings
from ctcguard.rules.gradients.non_finite_gradient import NonFiniteGradient


def readings(largest: float, **other: Any) -> Readings:
    columns = {name: np.asarray(value, float) if isinstance(value, list) else value for name, value in other.items()}
    return Readings({"gradient_abs_max": largest, **columns})


@pytest.mark.parametrize("largest", [0.0, 1e-30, 3.4e38])
def test_healthy(largest: float) -> None:
    assert NonFiniteGradient().check(readings(largest)) is None
    assert NonFiniteGradient().check(readings(largest, losses=[np.nan], non_finite_padding_frames=[3])) is None


@pytest.mark.parametrize("largest", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("other", "cause", "affected", "note", "fix"),
    [
        ({}, "backward", set(), "", "detect_anomaly()"),
        ({"losses": [1, 2], "non_finite_padding_frames": [0, 0]}, "backward", set(), "", "float32"),
        (
            {"losses": [1, 2], "non_finite_padding_frames": [0, 7]},
            "padded-frames",
            {1},
            "7 padded frames",
            "masked_fill",
        ),
        ({"non_finite_padding_frames": [2, 0]}, "padded-frames", {0}, "2 padded frames", "masked_fill"),
        ({"losses": [np.inf, 2], "non_finite_padding_frames": [0, 7]}, "loss", {0}, "loss inf", "utterance 0"),
        ({"losses": [1, np.nan]}, "loss", {1}, "loss nan", "CTC403"),
    ],
)
def test_fires(largest: float, other: dict[str, Any], cause: str, affected: set[int], note: str, fix: str) -> None:
    finding = NonFiniteGradient().check(readings(largest, **other))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC601", cause, "error")
    assert finding.affected == affected
    assert fix in finding.fix
    assert all(note in item.note for item in finding.utterances)


@pytest.mark.parametrize(
    ("name", "said"), [("lm_head.weight", ", first in lm_head.weight"), ("", "largest is nan"), (None, "is nan")]
)
def test_names_the_first_parameter_where_it_is_known(name: str | None, said: str) -> None:
    finding = NonFiniteGradient().check(readings(np.nan, **({} if name is None else {"gradient_parameter": name})))
    assert finding is not None
    assert finding.message.endswith(said)


def test_padded_frames_of_torch() -> None:
    """The loss is finite and right, all other rules are silent, and the gradient is NaN."""
    frames = torch.zeros(9, 2, 5)
    frames[7:, 1] = torch.nan
    head = torch.randn(5, 5, requires_grad=True)
    log_probs = (frames @ head).log_softmax(-1)
    given = {"targets": torch.tensor([[1, 2], [3, 4]]), "input_lengths": [9, 7], "target_lengths": [2, 2], "blank": 0}
    losses = torch.nn.functional.ctc_loss(log_probs, **given, reduction="none")
    losses.sum().backward()
    assert diagnose(log_probs=log_probs.detach(), losses=losses.detach(), batch_first=False, **given) == ()
    assert head.grad is not None
    values = {"losses": losses.detach().numpy(), "non_finite_padding_frames": np.asarray([0.0, 2.0])}
    found = judge(
        [NonFiniteGradient()], Readings({"gradient_abs_max": float(gradient_abs_max([head.grad])[0]), **values})
    )
    assert [(f.cause, f.affected) for f in found.findings] == [("padded-frames", {1})]
