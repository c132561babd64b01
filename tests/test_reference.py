"""The float64 reference against slow loops, every alignment there is, and torch in float64."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctcguard.reference import best_alignment, loss, loss_of_columns, uniform_loss
from tests.reference import ctc

SCALES = [0.0, 1.0, 30.0, 1000.0]


def trial(seed: int, frames: int, classes: int, labels: int, blank: int, scale: float = 1.0) -> tuple[Any, Any]:
    """Log-probs (time, classes), and labels that are never the blank."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.standard_normal((frames, classes))
    drawn = rng.integers(0, classes - 1, labels)
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True), drawn + (drawn >= blank)


small = {
    "seed": st.integers(0, 10**6),
    "frames": st.integers(0, 6),
    "classes": st.integers(2, 3),
    "labels": st.integers(0, 4),
    "blank": st.integers(0, 1),
    "scale": st.sampled_from(SCALES),
}


@settings(max_examples=100)
@given(**small)
def test_every_alignment_is_counted_once(blank: int, **of: Any) -> None:
    log_probs, labels = trial(blank=blank, **of)
    paths = ctc.alignments(len(log_probs), labels.tolist(), log_probs.shape[1], blank)
    costs = [-sum(log_probs[t, symbol] for t, symbol in enumerate(path)) for path in paths]
    total = -ctc.log_sum([-cost for cost in costs]) if costs else math.inf
    assert loss(log_probs, labels, blank) == pytest.approx(total, rel=1e-12, abs=1e-12)
    best = best_alignment(log_probs, labels, blank)
    assert best.cost == pytest.approx(min(costs, default=math.inf), rel=1e-12, abs=1e-12)
    assert not costs or tuple(best.path.tolist()) in paths


@settings(max_examples=100)
@given(**small | {"frames": st.integers(0, 30), "classes": st.integers(2, 9), "labels": st.integers(0, 20)})
def test_the_loops_agree(blank: int, **of: Any) -> None:
    log_probs, labels = trial(blank=blank, **of)
    slow = ctc.loss(log_probs.tolist(), labels.tolist(), blank)
    assert loss(log_probs, labels, blank) == pytest.approx(slow, rel=1e-12, abs=1e-12)


@settings(max_examples=60)
@given(**small | {"frames": st.integers(1, 200), "classes": st.integers(2, 40), "labels": st.integers(0, 60)})
def test_torch_agrees_and_so_does_its_best_path(blank: int, **of: Any) -> None:
    log_probs, labels = trial(blank=blank, **of)
    frames, count = len(log_probs), len(labels)
    given_to_torch = torch.from_numpy(log_probs)[:, None], torch.from_numpy(labels)[None], [frames], [count]
    of_torch = torch.nn.functional.ctc_loss(*given_to_torch, blank=blank, reduction="none").item()
    found = loss(log_probs, labels, blank)
    assert found == pytest.approx(of_torch, rel=1e-12, abs=1e-9)
    best = best_alignment(log_probs, labels, blank)
    assert best.cost >= found - 1e-9
    assert (len(best.path) == frames) == math.isfinite(found)
    if math.isfinite(found):
        assert ctc.collapsed(best.path.tolist(), blank) == tuple(labels)
        assert best.cost == pytest.approx(-log_probs[np.arange(frames), best.path].sum(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("labels", [[], [1], [1, 1, 2], [2, 1, 2, 1]])
def test_scores_that_are_no_distribution_are_taken_as_they_are(blank: int, labels: list[int]) -> None:
    scores = np.random.default_rng(0).standard_normal((9, 4))
    assert loss(scores, np.asarray(labels, int), blank) == pytest.approx(ctc.loss(scores.tolist(), labels, blank))


def test_a_blank_among_the_labels_is_read_as_torch_reads_it() -> None:
    log_probs, labels = trial(0, 12, 5, 4, 0)
    labels[1] = 0
    given_to_torch = torch.from_numpy(log_probs)[:, None], torch.from_numpy(labels)[None], [12], [4]
    of_torch = torch.nn.functional.ctc_loss(*given_to_torch, reduction="none").item()
    assert loss(log_probs, labels, 0) == pytest.approx(of_torch)


@pytest.mark.parametrize(
    ("frames", "labels", "expected"),
    [(0, [], 0.0), (0, [1], math.inf), (2, [1, 2, 1], math.inf), (2, [1, 1], math.inf), (3, [1, 1], 3 * math.log(4))],
)
def test_too_few_frames(frames: int, labels: list[int], expected: float) -> None:
    log_probs, targets = np.log(np.full((frames, 4), 0.25)), np.asarray(labels, int)
    assert loss(log_probs, targets, 0) == pytest.approx(expected)
    assert best_alignment(log_probs, targets, 0).cost == pytest.approx(expected)


def test_an_empty_target_reads_blanks_only() -> None:
    log_probs, _ = trial(0, 8, 5, 0, 2)
    nothing = np.zeros(0, int)
    assert loss(log_probs, nothing, 2) == pytest.approx(-log_probs[:, 2].sum())
    assert best_alignment(log_probs, nothing, 2).path.tolist() == [2] * 8


def test_a_nan_is_passed_on_where_it_can_matter_only() -> None:
    log_probs, labels = trial(0, 8, 5, 3, 0)
    log_probs[4, next(c for c in range(1, 5) if c not in labels)] = np.nan
    assert math.isfinite(loss(log_probs, labels, 0))
    for column in (0, labels[1]):
        bad = log_probs.copy()
        bad[4, column] = np.nan
        assert math.isnan(loss(bad, labels, 0))


def test_impossible_classes_make_an_infinite_loss_and_no_warning() -> None:
    log_probs, labels = trial(0, 8, 5, 3, 0)
    log_probs[:, labels[1]] = -np.inf
    assert loss(log_probs, labels, 0) == math.inf
    assert best_alignment(log_probs, labels, 0) == (math.inf, pytest.approx(np.zeros(0)))


@pytest.mark.parametrize("label", [-1, 5])
@pytest.mark.parametrize("function", [loss, best_alignment])
def test_a_label_that_is_no_class_is_refused(function: Callable[..., Any], label: int) -> None:
    with pytest.raises(IndexError, match="must be in 0 … 4"):
        function(np.zeros((9, 5)), np.asarray([1, label]), 0)
    with pytest.raises(IndexError):
        function(np.zeros((9, 5)), np.asarray([1]), label)


def test_a_kernel_that_forgets_the_blank_between_equal_labels() -> None:
    """Then equal labels have as many alignments as different ones."""
    log_probs = np.log(np.full((3, 4), 0.25))
    equal, different = np.asarray([1, 1]), np.asarray([1, 2])
    assert loss(log_probs, equal, 0) == pytest.approx(3 * math.log(4) - math.log(1))
    assert loss(log_probs, equal, 0, repeats_need_blank=False) == pytest.approx(3 * math.log(4) - math.log(5))
    assert loss(log_probs, different, 0, repeats_need_blank=False) == loss(log_probs, different, 0)


def test_columns_of_the_blank_and_the_labels_are_enough() -> None:
    log_probs, labels = trial(0, 20, 9, 6, 4)
    columns = log_probs[:, [4, *labels]]
    assert loss_of_columns(columns, labels) == loss(log_probs, labels, 4)


@pytest.mark.parametrize(("frames", "labels"), [(1, []), (7, [1, 2]), (9, [3, 3, 3, 1]), (20, [1, 1]), (50, [])])
def test_the_closed_form_of_a_uniform_output(frames: int, labels: list[int]) -> None:
    repeats = sum(a == b for a, b in pairwise(labels))
    uniform = np.log(np.full((frames, 5), 0.2))
    closed = uniform_loss(frames, 5, len(labels), repeats)
    assert closed == pytest.approx(loss(uniform, np.asarray(labels, int), 0), rel=1e-12)


def test_the_closed_form_where_nothing_fits() -> None:
    assert uniform_loss(3, 5, 3, 1) == math.inf
    assert uniform_loss(0, 5, 0) == 0.0


def test_fast_enough_for_a_call_now_and_then() -> None:
    """1,500 frames and 100 labels took 16 ms on one core; the limit leaves room for a busy one."""
    log_probs, labels = trial(0, 1500, 32, 100, 0)
    took = []
    for _ in range(5):
        started = time.perf_counter()
        loss(log_probs, labels, 0)
        took.append(time.perf_counter() - started)
    assert min(took) < 0.1
