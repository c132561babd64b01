"""Random right calls: nothing to be said. One mistake in them: always found, as the root, with its cause.

More examples: ``HYPOTHESIS_PROFILE=thorough pytest tests/clean/test_mutations.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis.strategies as st
import jax
import numpy as np
import optax
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings

from ctcguard import CTCVerdictError, Severity, diagnose, guard_step, watch
from ctcguard.finding import Finding
from ctcguard.verdict import Verdict
from tests.clean import mutations
from tests.clean.mutations import MUTATIONS, Parts
from tests.clean.random_calls import calls

MANY = max(1, settings().max_examples // 5)
FEW = max(1, MANY // 3)
SINGLE = max(1, MANY // 20)
LEAST = 5
"""So many examples of each mistake must have been possible: a test of none proves nothing."""


def examples(count: int) -> settings:
    """So many; a mistake that is seldom possible in a random call is looked for long enough."""
    return settings(max_examples=count, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])


def loud(findings: list[Finding]) -> list[Finding]:
    """All but information."""
    return [finding for finding in findings if finding.severity is not Severity.INFORMATION]


def alarms(parts: Parts) -> list[Verdict]:
    """All verdicts but information."""
    return [verdict for verdict in diagnose(**parts.call()) if loud(list(verdict.findings()))]


@pytest.mark.parametrize("name", MUTATIONS)
def test_one_mistake_is_found_as_the_root(name: str) -> None:
    seen = []

    @examples(MANY)
    @given(calls(), st.data())
    def check(kind: dict[str, Any], data: st.DataObject) -> None:
        right = Parts.of(kind)
        assert alarms(right) == []
        wrong = MUTATIONS[name](data, kind, right)
        seen.append(wrong)
        first, *others = alarms(wrong.parts)
        assert (first.code, first.cause) == (wrong.code, wrong.cause), first.text()
        assert wrong.also <= {finding.code for finding in first.also}, first.text()
        assert {verdict.code for verdict in others} <= wrong.beside, "\n".join(v.text() for v in others)

    check()
    assert len(seen) >= LEAST


# --------------------------------------------------------------------------------------------------------- torch, watch

CONTRACT = ("label out of range", "negative", "blank", "padding counted", "every", "fewer", "length", "no frames")
# torch takes no fractions of frames and no losses from elsewhere; a vocabulary is judged when an optimizer steps.
ELSEWHERE = {"lengths as shares", "negative loss", "label out of range in a known vocabulary"}
IN_TORCH = [name for name in MUTATIONS if name.startswith(CONTRACT) and name not in ELSEWHERE]


def by_torch(log_probs: torch.Tensor, parts: Parts) -> None:
    """The loss itself, (batch, time, classes), and its gradient."""
    call = parts.call()
    facts = [torch.as_tensor(call[name]) for name in ("targets", "input_lengths", "target_lengths")]
    losses = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), *facts, blank=parts.blank, reduction="none", zero_infinity=parts.zero_infinity
    )
    losses.sum().backward()


def as_given(parts: Parts) -> torch.Tensor:
    scores = torch.from_numpy(parts.scores)
    return (scores if scores.dtype == torch.float64 else scores.float()).requires_grad_(True)


def guarded(loss: Callable[[], None]) -> tuple[list[Finding], Verdict | None]:
    """What is found in a call, and the verdict that ended it."""
    guard = watch(on_warning="raise", sinks=())
    try:
        with guard:
            loss()
    except CTCVerdictError as stopped:
        return guard.findings, stopped.verdict
    return guard.findings, None


@pytest.mark.parametrize("name", IN_TORCH)
def test_watch_stops_at_a_wrong_contract(name: str) -> None:
    """Before the loss is called: with such labels it would read, and write, beyond its memory."""

    @examples(FEW)
    @given(calls(), st.data())
    def check(kind: dict[str, Any], data: st.DataObject) -> None:
        right = Parts.of(kind)
        findings, verdict = guarded(lambda: by_torch(as_given(right), right))
        assert verdict is None
        assert loud(findings) == []
        wrong = MUTATIONS[name](data, kind, right)
        _, verdict = guarded(lambda: by_torch(as_given(wrong.parts), wrong.parts))
        assert verdict is not None
        assert (verdict.code, verdict.cause) == (wrong.code, wrong.cause), verdict.text()

    check()


GRAPHS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "raw logits": (lambda x: x, "raw-logits"),
    "softmax": (lambda x: x.softmax(-1), "probabilities"),
    "softmax over time": (lambda x: x.log_softmax(1), "wrong-axis"),
    "softmax over the batch": (lambda x: x.log_softmax(0), "wrong-axis"),
    "temperature": (lambda x: x.log_softmax(-1) / 1.7, "altered-after-softmax"),
    "clamped": (lambda x: x.log_softmax(-1).clamp(min=-1.5), "altered-after-softmax"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_watch_tells_by_the_graph_how_scores_went_wrong(name: str) -> None:
    """The head is a layer of the identity: what the graph shows does not depend on values."""
    alter, cause = GRAPHS[name]

    @examples(FEW)
    @given(calls())
    def check(kind: dict[str, Any]) -> None:
        right = Parts.of(kind | {"softmax": "float32", "scores": "float32"})
        features = mutations.logits(kind | {"softmax": "float32"}, right)
        head = torch.eye(right.classes).requires_grad_(True)

        def scores() -> torch.Tensor:
            return torch.nn.functional.linear(features, head)

        findings, verdict = guarded(lambda: by_torch(scores().log_softmax(-1), right))
        assert verdict is None
        assert loud(findings) == []
        wrong = mutations.of(right, alter(scores()).detach())
        mutations.assume_clearly_unnormalised(wrong)
        if cause == "altered-after-softmax":
            mutations.assume_normalised_over_no_other_axis(wrong)
        _, verdict = guarded(lambda: by_torch(alter(scores()), right))
        assert verdict is not None
        assert (verdict.code, verdict.cause) == ("CTC402", cause), verdict.text()

    check()


# ---------------------------------------------------------------------------------------------------- optax, guard_step

BATCH, FRAMES, LABELS, CLASSES = 3, 16, 5, 6
Arrays = dict[str, np.ndarray]
"""Static shapes, so that the step is compiled once: ``logits``, ``frame_paddings``, ``labels``, ``label_paddings``."""


class Batch(NamedTuple):
    """What a right batch is made of; the first utterance fills the time axis, all have frames for their labels."""

    seed: int
    counts: list[int]
    lengths: list[int]
    scale: float

    def arrays(self) -> Arrays:
        random = np.random.default_rng(self.seed)
        lengths = np.asarray([FRAMES, *self.lengths])
        return {
            "logits": (self.scale * random.normal(size=(BATCH, FRAMES, CLASSES))).astype(np.float32),
            "frame_paddings": (np.arange(FRAMES)[None] >= lengths[:, None]).astype(np.float32),
            "labels": random.integers(1, CLASSES, (BATCH, LABELS)).astype(np.int32),
            "label_paddings": (np.arange(LABELS)[None] >= np.asarray(self.counts)[:, None]).astype(np.float32),
        }


def drawn(seed: int) -> Batch:
    random = np.random.default_rng(seed)
    counts, lengths = random.integers(1, LABELS + 1, BATCH), random.integers(2 * LABELS, FRAMES, BATCH - 1)
    return Batch(seed, counts.tolist(), lengths.tolist(), scale=float(random.choice([0.01, 1.0, 10.0])))


# Compiling takes a second, so that few examples are run: from a seed even the first of them is no trivial one.
BATCHES = st.integers(0, 2**16).map(drawn)
RUNS = st.integers(0, 2**16).map(lambda seed: [drawn(seed + step) for step in range(6)])


def labelled(arrays: Arrays, label: int) -> Arrays:
    """The first label of the second utterance is another one."""
    labels = arrays["labels"].copy()
    labels[1, 0] = label
    return arrays | {"labels": labels}


def cut_short(arrays: Arrays) -> Arrays:
    """The second utterance has one frame, for all its labels."""
    paddings = arrays["frame_paddings"].copy()
    paddings[1, 1:] = 1.0
    return arrays | {"frame_paddings": paddings}


def with_nan(arrays: Arrays, frame: int) -> Arrays:
    logits = arrays["logits"].copy()
    logits[1, frame] = math.nan
    return arrays | {"logits": logits}


def labels_of_second(arrays: Arrays) -> int:
    return int((1 - arrays["label_paddings"][1]).sum())


IN_OPTAX: dict[str, tuple[Callable[[Arrays], Arrays], Callable[[Arrays], tuple[str, str]]]] = {
    "label out of range": (lambda a: labelled(a, CLASSES + 3), lambda a: ("CTC201", "label-beyond-head")),
    "no class for the blank": (lambda a: labelled(a, CLASSES), lambda a: ("CTC201", "no-class-for-blank")),
    "padding of -1": (lambda a: labelled(a, -1), lambda a: ("CTC202", "padding")),
    "ignore index": (lambda a: labelled(a, -100), lambda a: ("CTC202", "ignore-index")),
    "blank in the target": (
        lambda a: labelled(a, 0),
        lambda a: ("CTC203", "blank-index" if labels_of_second(a) > 1 else "padding-counted"),
    ),
    "too few frames": (cut_short, lambda a: ("CTC301", "too-short")),
    "NaN in a valid frame": (lambda a: with_nan(a, 0), lambda a: ("CTC403", "non-finite-features")),
    "NaN in a padded frame": (lambda a: with_nan(a, FRAMES - 1), lambda a: ("CTC502", "padded-frames")),
}  # fmt: skip


def step_of(prepare: Callable[[jax.Array], jax.Array] = lambda logits: logits) -> Any:
    """A step under a guard of its own: what a guard has said, it remembers."""

    def step(arrays: Any) -> jax.Array:
        paddings = arrays["frame_paddings"], arrays["labels"], arrays["label_paddings"]
        return optax.ctc_loss(prepare(arrays["logits"]), *paddings)

    return guard_step(jax.jit(step), on_warning="raise", sinks=(), budget=None)


def stopped(step: Any, arrays: Arrays) -> Verdict:
    with pytest.raises(CTCVerdictError) as caught:
        step(arrays)
    step.close()
    return caught.value.verdict


@pytest.mark.parametrize("name", IN_OPTAX)
def test_guard_step_stops_at_one_mistake(name: str) -> None:
    change, expected = IN_OPTAX[name]

    @examples(SINGLE)
    @given(RUNS)
    def check(run: list[Batch]) -> None:
        # One label fits into one frame.
        assume(name != "too few frames" or run[-1].counts[1] > 1)
        step = step_of()
        for batch in run:
            step(batch.arrays())
        assert loud(step.findings) == []
        right = run[-1].arrays()
        verdict = stopped(step, change(right))
        assert (verdict.code, verdict.cause) == expected(right), verdict.text()

    check()


@examples(SINGLE)
@given(BATCHES)
def test_guard_step_stops_at_probabilities(batch: Batch) -> None:
    verdict = stopped(step_of(jax.nn.softmax), batch.arrays())
    assert (verdict.code, verdict.cause) == ("CTC404", "softmax-before-loss"), verdict.text()


def inverted(lengths: list[int]) -> Verdict:
    """Frame paddings that are a mask; utterances of three labels."""
    random = np.random.default_rng(0)
    valid = np.arange(FRAMES)[None] < np.asarray(lengths)[:, None]
    arrays = {
        "logits": random.normal(size=(BATCH, FRAMES, CLASSES)).astype(np.float32),
        "frame_paddings": valid.astype(np.float32),
        "labels": np.asarray([[1, 2, 3]] * BATCH, np.int32),
        "label_paddings": np.zeros((BATCH, 3), np.float32),
    }
    return stopped(step_of(), arrays)


@pytest.mark.parametrize(
    "lengths",
    [[12, 10, 8], [16, 10, 8], [16, 15, 15]],
    ids=["none fills the time axis", "one fills it, and is padding only", "one frame is left, as in shares"],
)
def test_guard_step_stops_at_inverted_paddings(lengths: list[int]) -> None:
    verdict = inverted(lengths)
    assert (verdict.code, verdict.cause) == ("CTC302", "inverted-paddings"), verdict.text()
