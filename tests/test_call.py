"""The normal form of a call: views of what was given, and one line for shapes that are no CTC call."""

from __future__ import annotations

import weakref
from typing import Any

import array_api_strict
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ctcguard.call import ctc_call
from ctcguard.errors import CallError
from ctcguard.provenance import Provenance, Step

SCORES = np.zeros((2, 9, 4), dtype=np.float32)
CALL: dict[str, Any] = {"targets": [[1, 2], [3, 0]], "input_lengths": [9, 8], "target_lengths": [2, 1], "blank": 0}


@pytest.mark.parametrize("library", [np, torch, jnp, array_api_strict])
def test_every_library(library: Any) -> None:
    call = ctc_call(log_probs=library.asarray(SCORES), **CALL)
    assert (call.batch, call.frames, call.classes, call.expects, call.concatenated) == (2, 9, 4, "log_probs", False)


def test_scores_are_a_view_whatever_the_layout() -> None:
    for given in (SCORES, np.zeros((9, 2, 4), dtype=np.float32), np.zeros((9, 4), dtype=np.float32)):
        call = CALL if given.ndim == 3 else CALL | {"targets": [1], "input_lengths": 9, "target_lengths": 1}
        scores = ctc_call(log_probs=given, batch_first=given is SCORES, **call).scores
        assert np.shares_memory(scores, given)
        assert scores.shape[1:] == (9, 4)


def test_torch_scores_stay_a_view() -> None:
    given = torch.zeros(9, 2, 4)
    assert ctc_call(log_probs=given, batch_first=False, **CALL).scores.data_ptr() == given.data_ptr()


@pytest.mark.parametrize("lengths", [[9, 8], (9, 8), np.asarray([9, 8]), torch.tensor([9, 8])])
def test_lengths_of_every_kind(lengths: Any) -> None:
    call = ctc_call(log_probs=SCORES, **CALL | {"input_lengths": lengths})
    assert tuple(int(length) for length in call.input_lengths) == (9, 8)
    assert call.input_lengths is lengths or isinstance(lengths, list | tuple)


def test_concatenated_targets() -> None:
    assert ctc_call(log_probs=SCORES, **CALL | {"targets": [1, 2, 3]}).concatenated


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "exactly one of log_probs= "),
    ({"log_probs": SCORES, "logits": SCORES}, "exactly one of log_probs= "),
    (
        {"log_probs": np.zeros((1, 2, 9, 4))},
        r"must be \(batch, time, classes\) or \(time, classes\), not of shape \(1, 2, 9, 4\)",
    ),
    (
        {"log_probs": SCORES, "input_lengths": [9]},
        r"input_lengths must hold one length for each of the 2 utterances, not \(1,\)",
    ),
    ({"log_probs": SCORES, "target_lengths": [1, 1, 1]}, "target_lengths must hold one length"),
    ({"log_probs": SCORES, "targets": [[1], [2], [3]]}, r"targets must be \(batch, labels\) with batch 2, or one row"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED)
def test_refused_with_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CallError, match=said) as caught:
        ctc_call(**{**CALL, **change})
    assert "\n" not in str(caught.value)


def test_softmax_dtype_is_where_it_ran_not_where_it_was_cast() -> None:
    made = Provenance((Step("linear"), Step("log_softmax", 2, 2, (2, 9, 4), "bfloat16"), Step("cast", dtype="float32")))
    assert ctc_call(log_probs=SCORES, provenance=made, **CALL).softmax_dtype == "bfloat16"
    assert ctc_call(log_probs=SCORES, **CALL).softmax_dtype == "float32"


def test_without_arrays_keeps_no_batch_alive() -> None:
    scores = torch.zeros(2, 9, 4)
    held, call = weakref.ref(scores), ctc_call(log_probs=scores, losses=torch.zeros(2), **CALL).without_arrays()
    del scores
    assert held() is None
    assert call.scores.shape == (2, 0, 0)
    assert call.losses is None
    assert call.batch == 2
