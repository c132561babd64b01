"""What is measured of which call."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from ctcguard.call import CTCCall, ctc_call
from ctcguard.depth import CONTRACTS, EVERY_FRAME, EXACT_LOSS_CALLS, FULL, depth_of


def call(losses: object = None) -> CTCCall:
    lengths = {"input_lengths": [9, 9], "target_lengths": [1, 1]}
    return ctc_call(log_probs=np.zeros((2, 9, 4)), targets=[[1], [1]], blank=0, losses=losses, **lengths)


def test_in_full_as_long_as_the_budget_allows() -> None:
    assert {depth_of(call(np.ones(2)), number, False) for number in range(2, 200)} == {FULL}


def test_over_budget_only_contracts_and_losses() -> None:
    assert depth_of(call(), 7, True) == CONTRACTS


@pytest.mark.parametrize("loss", [np.nan, np.inf, 0.0, -1.0])
@pytest.mark.parametrize("over_budget", [False, True])
def test_a_bad_loss_is_always_looked_at_in_full(loss: float, over_budget: bool) -> None:
    assert depth_of(call(np.asarray([loss, 3.0])), 40, over_budget) == EVERY_FRAME
    assert depth_of(call(np.asarray([2.0, 3.0])), 40, over_budget) != EVERY_FRAME


def test_losses_on_a_device_are_not_read() -> None:
    losses = torch.empty(2, device="meta")
    assert depth_of(call(losses), 41, False) == FULL


def test_the_first_call_of_1024_has_one_utterance_looked_at_whole() -> None:
    seen = {}
    for number in (1, 2, EXACT_LOSS_CALLS, EXACT_LOSS_CALLS + 1, 2 * EXACT_LOSS_CALLS + 1):
        last = depth_of(call(), number, True).probes[-1]
        seen[number] = last.keywords["index"] if isinstance(last, functools.partial) else None
    assert list(seen.values()) == [0, None, None, 1, 0]
