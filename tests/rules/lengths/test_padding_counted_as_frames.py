"""CTC305."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctcguard import watch
from ctcguard.readings import Readings
from ctcguard.rules.lengths.padding_counted_as_frames import PaddingCountedAsFrames


def readings(lengths: list[float], tails: list[float], frames: int = 40) -> Readings:
    return Readings({"input_lengths": np.asarray(lengths), "tail_frames": np.asarray(tails), "frames": frames})


@pytest.mark.parametrize(
    ("lengths", "tails"),
    [
        ([40, 30, 20, 10], [1, 1, 1, 1]),
        ([40, 40, 40, 40], [1, 1, 1, 1]),
        ([40, 40, 40, 40], [10, 10, 10, 10]),  # all alike: the images end in a white margin
        ([40, 40, 40], [1, 20, 30]),  # too few
        ([40, 40, 40, 40], [1, 3, 2, 4]),  # too little
        ([40, 40, 40, 39], [1, 20, 30, 10]),
    ],
)
def test_healthy(lengths: list[float], tails: list[float]) -> None:
    assert PaddingCountedAsFrames().check(readings(lengths, tails)) is None


def test_it_is_information() -> None:
    finding = PaddingCountedAsFrames().check(readings([40] * 4, [1, 20, 30, 10]))
    assert finding is not None
    assert (finding.cause, finding.severity) == ("padded-width", "information")
    assert "36% of all frames" in finding.evidence
    assert finding.utterances[0].index == 2


@pytest.mark.parametrize("broken", [False, True])
def test_a_convolutional_model(broken: bool) -> None:
    torch.manual_seed(0)
    model = torch.nn.Conv1d(8, 6, 5, padding=2)
    lengths = torch.tensor([60, 40, 30, 20])
    features = torch.randn(4, 8, 60) * (torch.arange(60) < lengths[:, None])[:, None]
    log_probs = model(features).permute(2, 0, 1).log_softmax(-1)
    given = torch.full((4,), 60) if broken else lengths
    with watch(on_error="log", sinks=()) as guard:
        torch.nn.functional.ctc_loss(log_probs, torch.randint(1, 6, (4, 5)), given, torch.full((4,), 5))
    assert [finding.code for finding in guard.findings] == (["CTC305"] if broken else [])
    assert guard.verdicts == [] or guard.verdicts[0].action == "log"
