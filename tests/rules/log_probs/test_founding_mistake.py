"""The forum thread 'CTC loss is negative': softmax output in ``nn.CTCLoss(blank=28)``, 29 classes."""

from __future__ import annotations

import pytest
import torch

from ctcguard import diagnose
from tests.reference.calls import of_torch


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_one_verdict(seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    logits = scale * torch.randn(200, 8, 29)
    given = {
        "targets": torch.randint(0, 28, (8, 20)),
        "input_lengths": torch.full((8,), 200),
        "target_lengths": torch.randint(10, 21, (8,)),
        "blank": 28,
    }
    (verdict,) = diagnose(**of_torch(logits.softmax(-1), **given))
    assert (verdict.code, verdict.cause) == ("CTC402", "probabilities")
    assert {finding.code for finding in verdict.also} == {"CTC401", "CTC501"}
    assert "log_softmax(x, -1) instead of softmax(x, -1)" in verdict.root.fix
    assert diagnose(**of_torch(logits.log_softmax(-1), **given)) == ()
