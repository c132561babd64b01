"""CTC206."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctcguard import watch
from ctcguard.readings import Readings
from ctcguard.rules.targets.identical_targets import IdenticalTargets


def readings(prints: np.ndarray, lengths: np.ndarray) -> Readings:
    return Readings({"history": {"fingerprint": prints, "input_length_max": lengths}})


SAME, LENGTHS = np.full(20, 5.0), np.arange(20) % 4 + 50.0


@pytest.mark.parametrize(
    ("prints", "lengths"),
    [
        (np.arange(20.0), LENGTHS),
        (SAME, np.full(20, 50.0)),  # one utterance, overfitted on purpose, or one fixed width
        (SAME, np.arange(20) % 3 + 50.0),  # the same at three speeds
        (SAME[:10], LENGTHS[:10]),
        (np.where(np.arange(20) == 15, 6.0, SAME), LENGTHS),
        (np.where(np.arange(20) == 15, np.nan, SAME), LENGTHS),  # one call with several transcripts
        (np.full(20, np.nan), LENGTHS),
    ],
)
def test_healthy(prints: np.ndarray, lengths: np.ndarray) -> None:
    assert IdenticalTargets().check(readings(prints, lengths)) is None


def test_fires() -> None:
    finding = IdenticalTargets().check(readings(SAME, LENGTHS))
    assert finding is not None
    assert (finding.cause, finding.severity) == ("one-transcript", "warning")
    assert "last 16 training calls" in finding.message
    assert "4 different lengths (50 to 53 frames)" in finding.evidence


@pytest.mark.parametrize("broken", [False, True])
def test_in_a_real_loop(broken: bool) -> None:
    random = np.random.default_rng(0)
    model = torch.nn.Linear(4, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    texts = [torch.tensor(random.integers(1, 6, (2, 4))) for _ in range(40)]
    with watch(on_error="log", on_warning="log", sinks=()) as guard:
        for step in range(40):
            frames = int(random.integers(20, 40))
            text = torch.tensor([[1, 2, 3, 4]] * 2) if broken else texts[step]
            log_probs = model(torch.randn(frames, 2, 4)).log_softmax(-1)
            torch.nn.functional.ctc_loss(log_probs, text, (frames, frames), (4, 4)).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert [(verdict.code, verdict.step) for verdict in guard.verdicts] == ([("CTC206", 15)] if broken else [])
