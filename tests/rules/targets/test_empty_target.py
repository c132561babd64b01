"""CTC204."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import ctcguard
from ctcguard import watch
from ctcguard.finding import Finding
from ctcguard.readings import Readings
from ctcguard.rules.targets.empty_target import EmptyTarget


def check(lengths: list[float], all_empty_utterances: int = 64, **more: Any) -> Finding | None:
    known = {"target_lengths": np.asarray(lengths, dtype=float), "score_max": np.zeros(len(lengths)), **more}
    return EmptyTarget(all_empty_utterances=all_empty_utterances).check(Readings(known))


@pytest.mark.parametrize("lengths", [[1], [1, 5], [-1, 2]])  # a negative one is CTC303's
def test_healthy(lengths: list[float]) -> None:
    assert check(lengths) is None


@pytest.mark.parametrize(
    ("lengths", "cause", "severity"),
    [
        ([0], "silence", "information"),
        ([0] * 63, "silence", "information"),  # under the threshold
        ([0] * 64, "all-empty", "error"),  # at it
        ([0] * 65, "all-empty", "error"),  # over it
        ([0] * 64 + [1], "silence", "information"),
        ([1, math.nan], "silence", "information"),
    ],
)
def test_severity(lengths: list[float], cause: str, severity: str) -> None:
    finding = check(lengths)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC204", cause, severity)


def test_threshold() -> None:
    finding = check([0, 0], all_empty_utterances=2)
    assert finding is not None
    assert finding.severity == "error"
    assert "no transcript has reached the loss so far, in 2 utterances" in finding.evidence
    assert "print what the tokenizer makes of one transcript" in finding.fix


@pytest.mark.parametrize(
    ("labels", "severity"),
    [
        ([0.0] * 16, "error"),  # 64 utterances
        ([0.0] * 15, "information"),
        ([2.5, *[0.0] * 31], "information"),  # a label was seen
        ([*[0.0] * 31, math.nan], "information"),
    ],
)
def test_the_run_so_far(labels: list[float], severity: str) -> None:
    finding = check([0, 0, 0, 0], history={"labels": np.asarray(labels)}, length_history=((9, 9),) * len(labels))
    assert finding is not None
    assert finding.severity == severity


@pytest.mark.parametrize(("calls", "severity"), [(1, "error"), (2, "information")])
def test_between_two_looks_at_the_run_only_its_first_call_is_judged(calls: int, severity: str) -> None:
    finding = check([0] * 64, length_history=((9, 9),) * calls)
    assert finding is not None
    assert finding.severity == severity


@pytest.mark.parametrize(("spoken", "step"), [(None, 15), (0, None), (7, None), (15, None)])
def test_in_a_real_loop(spoken: int | None, step: int | None) -> None:
    """Batches of four; ``spoken`` is the only one with a label."""
    model = torch.nn.Linear(4, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with watch(on_error="log", sinks=()) as guard:
        for now in range(40):
            counts = torch.full((4,), int(now == spoken))
            log_probs = model(torch.randn(20, 4, 4)).log_softmax(-1)
            torch.nn.functional.ctc_loss(log_probs, torch.ones(4, 2).long(), torch.full((4,), 20), counts).backward()
            optimizer.step()
            optimizer.zero_grad()
    errors = [verdict for verdict in guard.verdicts if verdict.root.severity == "error"]
    assert [(verdict.code, verdict.cause, verdict.step) for verdict in errors] == (
        [] if step is None else [("CTC204", "all-empty", step)]
    )


@pytest.mark.parametrize(
    ("reduction", "losses", "share"),
    [
        ("mean", [20.0, 20.0], 20 / (20 + 20 / 4)),
        ("mean", [20.0, math.inf], None),
        ("mean", [math.nan, 20.0], None),
        ("mean", [0.0, 0.0], None),
        ("sum", [20.0, 20.0], None),
        ("none", [20.0, 20.0], None),
    ],
)
def test_share_of_the_loss(reduction: str, losses: list[float], share: float | None) -> None:
    finding = check([0, 4], reduction=reduction, losses=np.asarray(losses))
    assert finding is not None
    assert finding.readings["loss_share_fraction"] == pytest.approx(share)
    assert ("carry 80% of the batch's mean loss" in finding.message) == (share is not None)
    assert ('reduction="sum"' in finding.fix) == (share is not None)
    assert finding.severity == "information"


def test_utterances_are_named() -> None:
    finding = check([0, 3, 0, 0, 0, 0, 0])
    assert finding is not None
    assert [u.index for u in finding.utterances] == [0, 2, 3, 4, 5]
    assert finding.message.startswith("6 of 7 utterances have an empty target")


def test_end_to_end() -> None:
    call = {"log_probs": np.log(np.full((1, 9, 4), 0.25)), "targets": [[1, 2]], "input_lengths": [9], "blank": 0}
    assert ctcguard.diagnose(**call, target_lengths=[2]) == ()
    (verdict,) = ctcguard.diagnose(**call, target_lengths=[0])
    assert (verdict.code, verdict.root.severity) == ("CTC204", "information")
