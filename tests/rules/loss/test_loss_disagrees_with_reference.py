"""CTC505."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctcguard import watch
from ctcguard.call import ctc_call
from ctcguard.finding import Finding
from ctcguard.judge import facts
from ctcguard.probes import DISTRIBUTION, measure, one_utterance, unpack
from ctcguard.readings import Readings
from ctcguard.reference import loss
from ctcguard.rules.loss.loss_disagrees_with_reference import LossDisagreesWithReference
from tests.reference.calls import of_optax, of_torch

FRAMES, CLASSES = 40, 9
LENGTHS = [31, 40]
LABELS = [[3, 3, 5, 2], [1, 2, 4, 4]]
COUNTS = [3, 4]


def scores(seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).standard_normal((2, FRAMES, CLASSES)).astype(np.float32)
    return logits - np.logaddexp.reduce(logits, axis=2, keepdims=True)


def readings(index: int = 0, **call: Any) -> Readings:
    """As the guard has them at a call, of one of its utterances."""
    normal = ctc_call(**call)
    packed, layout = measure(normal, (*DISTRIBUTION, functools.partial(one_utterance, index=index)))
    return Readings({**facts(normal), **unpack(packed, layout)})


def right(index: int, **changed: Any) -> float:
    """The reference, with other frames, labels, blank or rules."""
    log_probs, options = scores()[index].astype(np.float64), {"blank": 0, **changed}
    frames = options.pop("frames", LENGTHS[index])
    labels = np.asarray(LABELS[index][: options.pop("count", COUNTS[index])])
    return loss(log_probs[:frames], labels, **options)


def told(nats: float, index: int = 0, **call: Any) -> Readings:
    """The loss of one utterance of a call like the others, whatever it is."""
    losses = np.zeros(2, np.float32 if math.isfinite(nats) else np.float64)
    losses[index] = nats
    given_here = {
        "log_probs": scores(),
        "targets": LABELS,
        "input_lengths": LENGTHS,
        "target_lengths": COUNTS,
        "blank": 0,
        "losses": losses,
        "source": "guard.observe",
    }
    return readings(index, **{**given_here, **call})


def check(found: Readings, **limits: float) -> Finding | None:
    return LossDisagreesWithReference(**limits).check(found)


@pytest.mark.parametrize("index", [0, 1])
def test_the_right_loss_is_healthy(index: int) -> None:
    assert check(told(right(index), index)) is None


def test_the_limit_of_what_is_not_known() -> None:
    nats = right(0)
    slack = 4e-3 * 31 + 5e-3 * nats
    for sign in (-1, 1):
        assert check(told(nats + sign * 0.98 * slack)) is None
        assert check(told(nats + sign * 1.02 * slack)) is not None
        assert check(told(nats + sign * 1.02 * slack), half_nats=0.01) is None
        assert check(told(nats + sign * 1.02 * slack), half_fraction=0.01) is None


def test_a_known_mistake_is_told_from_a_smaller_difference_and_must_be_met_closely() -> None:
    """One repeat in 31 frames: half a percent of the loss."""
    known, slack = right(0, repeats_need_blank=False), 1e-2 + 1e-4 * right(0)
    assert abs(known - right(0)) < 4e-3 * 31 + 5e-3 * right(0)
    for sign in (-1, 1):
        assert check(told(known + sign * 0.98 * slack)) is not None
        assert check(told(known + sign * 1.02 * slack)) is None
        assert check(told(known + sign * 1.02 * slack), slack_nats=0.02) is not None
        assert check(told(known + sign * 1.02 * slack), slack_fraction=2e-4) is not None


def test_the_limits_grow_with_the_frames() -> None:
    frames = 3000
    log_probs = np.log(np.full((1, frames, 4), 0.25))
    call = {"log_probs": log_probs, "targets": [[1]], "input_lengths": [frames], "target_lengths": [1], "blank": 0}
    nats = loss(log_probs[0], np.asarray([1]), 0)
    slack = 4e-3 * frames + 5e-3 * nats
    assert check(readings(**call, losses=np.asarray([nats + 0.98 * slack]))) is None
    assert check(readings(**call, losses=np.asarray([nats + 1.02 * slack]))) is not None
    narrow = {"half_nats": 0, "half_fraction": 0}
    slack = 3 * (1e-2 + 1e-4 * nats)
    assert check(readings(**call, losses=np.asarray([nats + 0.98 * slack])), **narrow) is None
    assert check(readings(**call, losses=np.asarray([nats + 1.02 * slack])), **narrow) is not None


@pytest.mark.parametrize("nats", [0.0, math.nan, math.inf, -math.inf])
def test_what_other_rules_report_is_left_to_them(nats: float) -> None:
    assert check(told(nats)) is None


@pytest.mark.parametrize(
    "call",
    [
        {"targets": [[3, CLASSES, 5, 2], [1, 2, 4, 4]]},
        {"targets": [[3, -100, 5, 2], [1, 2, 4, 4]]},
        {"blank": CLASSES},
        {"blank": -1},
        {"input_lengths": [FRAMES + 1, FRAMES]},
        {"input_lengths": [0, FRAMES]},
        {"target_lengths": [5, 4]},
        {"target_lengths": [-1, 4]},
        {"input_lengths": [3, FRAMES]},  # 3, 3, 5 needs four frames: the right loss is infinite
        {"log_probs": np.full((2, FRAMES, CLASSES), np.nan, np.float32)},
    ],
)
def test_nothing_is_said_where_no_right_loss_is_known(call: dict[str, Any]) -> None:
    for nats in (12.3, 1e5, 709.0):
        assert check(told(nats, **call)) is None


def test_labels_out_of_range_in_the_padding_do_not_matter() -> None:
    padded = [[3, 3, 5, -100], [1, 2, 4, 4]]
    assert check(told(right(0), targets=padded)) is None
    assert check(told(right(0) + 1, targets=padded)) is not None


@pytest.mark.parametrize(
    ("nats", "cause", "severity", "evidence", "fix"),
    [
        (right(0, blank=8), "blank-index", "error", "class 8 were the blank", "takes class 8, but blank=0 was said"),
        (right(0, repeats_need_blank=False), "repeats-ignored", "error", "between equal labels", "modified=False"),
        (right(0, frames=40), "wrong-length", "error", "all 40 frames counted, not the 31", "valid frames"),
        (right(0, count=4), "wrong-length", "error", "all 4 labels of the buffer counted, not the 3", "padding"),
        (right(0) / 3, "scaled", "warning", "divided by its 3 labels", "before any division"),
        (right(0) / 31, "scaled", "warning", "divided by its 31 frames", "before any division"),
        (right(0) / 40, "scaled", "warning", "divided by all 40 frames", "before any division"),
        (right(0) / 2, "scaled", "warning", "divided by the 2 utterances", "before any division"),
        (right(0) / math.log(2), "scaled", "warning", "in bits", "ln 2"),
        (-right(0), "scaled", "warning", "negated", "log-likelihood"),
        (right(0) * 1.37, "too-high", "warning", "no mistake that is known", "alignments are missing"),
        (right(0) * 0.83, "too-low", "warning", "no mistake that is known", "log_probs.double()"),
        (1e5, "too-high", "warning", "no mistake that is known", "blank=0"),
    ],
)
def test_each_cause(nats: float, cause: str, severity: str, evidence: str, fix: str) -> None:
    finding = check(told(nats))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC505", cause, severity)
    assert f"must be {right(0):.4g} nats" in finding.message
    assert f"but is {nats:.4g}" in finding.message
    assert evidence in finding.evidence
    assert fix in finding.fix
    assert (finding.affected, finding.utterances[0].index) == ({0}, 0)


def test_the_first_class_may_be_the_blank_that_was_used() -> None:
    found = told(right(0, blank=0), blank=8)
    finding = check(found)
    assert finding is not None
    assert finding.cause == "blank-index"
    assert "takes class 0, but blank=8 was said" in finding.fix


def test_a_number_of_a_framework_of_its_own_is_an_error() -> None:
    sources = {"guard.observe": "warning", "ctcguard.observe": "warning", "torch.ctc_loss": "error"}
    for source, severity in sources.items():
        finding = check(told(right(0) * 1.37, source=source))
        assert finding is not None
        assert finding.severity == severity


def test_concatenated_targets() -> None:
    flat = [3, 3, 5, 1, 2, 4, 4]
    for index in (0, 1):
        assert check(told(right(index), index, targets=flat)) is None
        assert check(told(right(index) + 1, index, targets=flat)) is not None


# Healthy losses: whatever torch and optax compute.

SIZES = {
    "seed": st.integers(0, 10**6),
    "frames": st.sampled_from([16, 60, 250, 1000]),
    "classes": st.sampled_from([2, 5, 32, 500]),
    "share": st.sampled_from([0.0, 0.05, 0.3]),
    "scale": st.sampled_from([0.0, 1.0, 10.0, 1000.0]),
    "peak": st.sampled_from([0.0, 12.0]),
}


def drawn(seed: int, frames: int, classes: int, share: float, scale: float, peak: float) -> tuple[Any, dict[str, Any]]:
    """Logits (time, 2, classes), and labels for about that share of the frames; the blank is the last class."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(frames, 2, classes, generator=generator, dtype=torch.float64)
    logits[..., -1] += peak
    lengths = torch.tensor([frames, max(1, frames - 7)])
    counts = (share * lengths).long()
    targets = torch.randint(0, classes - 1, (2, max(1, int(counts.max()))), generator=generator)
    return logits, {"targets": targets, "input_lengths": lengths, "target_lengths": counts, "blank": classes - 1}


@settings(max_examples=60)
@given(**SIZES, dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]))
def test_no_loss_of_torch_fires(dtype: torch.dtype, **of: Any) -> None:
    logits, call = drawn(**of)
    log_probs = logits.to(dtype).log_softmax(-1)
    log_probs = log_probs if dtype is torch.float64 else log_probs.float()
    for zero_infinity in (False, True):
        seen = of_torch(log_probs, **call, zero_infinity=zero_infinity)
        for index in (0, 1):
            assert check(readings(index, **seen)) is None


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("classes", [2, 32])
def test_no_loss_of_optax_fires(dtype: Any, classes: int) -> None:
    """Nor one that is told to the guard with the float32 logits that it casts itself."""
    for seed, scale, peak in ((0, 0.0, 0.0), (1, 1.0, 0.0), (2, 10.0, 0.0), (3, 1.0, 12.0)):
        logits, call = drawn(seed, 60, classes, 0.1, scale, peak)
        call["labels"] = call.pop("targets").numpy()
        for name in ("input_lengths", "target_lengths"):
            call[name] = call[name].numpy()
        seen = of_optax(jnp.asarray(logits.permute(1, 0, 2).numpy()).astype(dtype), **call)
        seen["logits"] = np.asarray(seen["logits"].astype(jnp.float32))
        for index in (0, 1):
            assert check(readings(index, **seen)) is None


@pytest.mark.parametrize("scale", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_long_loss_fires(scale: float, dtype: torch.dtype) -> None:
    logits, call = drawn(0, 3000, 32, 0.1, scale, 0.0)
    assert check(readings(0, **of_torch(logits.to(dtype).log_softmax(-1).float(), **call))) is None


@pytest.mark.parametrize("value", np.geomspace(1e-3, 1e3, 13, dtype=np.float32).tolist())
def test_a_drifting_sum_does_not_fire(value: float) -> None:
    """Adding the same number again and again rounds the same way each time: the worst found for float32."""
    log_probs = torch.full((3000, 1, 3), -value)
    seen = of_torch(log_probs, torch.tensor([[1, 2]]), [3000], [1])
    assert check(readings(0, **seen)) is None


def test_what_the_page_says_of_optax() -> None:
    nats: dict[str, float] = {}
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        name = jnp.dtype(dtype).name
        for classes, scale in ((32, 0.0), (32, 1.0), (2, 0.0)):
            rng = np.random.default_rng(0)
            logits = jnp.asarray(scale * rng.standard_normal((1, 60, classes))).astype(dtype)
            targets = rng.integers(1, classes, (1, 6))
            exact = np.asarray(jax.nn.log_softmax(logits.astype(jnp.float32)), np.float64)[0]
            expected = loss(exact, targets[0], 0)
            error = abs(float(of_optax(logits, targets, [60], [6])["losses"][0]) - expected)
            nats[name] = max(nats.get(name, 0.0), error / expected)
    assert nats["float32"] < 3.2e-5
    assert nats["float16"] == pytest.approx(1e-3, rel=0.1)
    assert nats["bfloat16"] == pytest.approx(9e-3, rel=0.15)


# In a guard.


def observed(make: Callable[[torch.Tensor], torch.Tensor]) -> list[tuple[str, list[str]]]:
    """Verdicts, each with its symptoms, of a loss that is made from the right one."""
    log_probs = torch.from_numpy(scores()).requires_grad_()
    call: dict[str, Any] = {
        "targets": torch.tensor(LABELS),
        "input_lengths": torch.tensor(LENGTHS),
        "target_lengths": torch.tensor(COUNTS),
        "blank": 0,
    }
    with watch(on_error="log", on_warning="log", sinks=()) as guard:
        losses = torch.nn.functional.ctc_loss(log_probs.detach().transpose(0, 1), **call, reduction="none")
        assert guard.findings == []
    with watch(on_error="log", on_warning="log", sinks=()) as guard:
        guard.observe(log_probs=log_probs, **call, losses=make(losses))
    return [(verdict.code, [finding.code for finding in verdict.also]) for verdict in guard.verdicts]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda losses: losses, []),
        (lambda losses: losses / torch.tensor(COUNTS), [("CTC505", ["CTC504"])]),
        (lambda losses: -losses, [("CTC505", ["CTC501", "CTC504"])]),
        (lambda losses: losses * 1.1, [("CTC505", [])]),
        (lambda losses: 0 * losses, [("CTC504", [])]),
    ],
)
def test_one_verdict_for_a_loss_of_ones_own(make: Any, expected: Any) -> None:
    assert observed(make) == expected


def test_a_loss_that_normalises_itself_is_a_symptom_of_the_scores_it_was_observed_with() -> None:
    logits = 3 * torch.randn(30, 2, 7, generator=torch.Generator().manual_seed(0))
    call: dict[str, Any] = {
        "targets": torch.tensor([[1, 2], [3, 3]]),
        "input_lengths": torch.tensor([30, 20]),
        "target_lengths": torch.tensor([2, 2]),
        "blank": 0,
    }
    losses = torch.nn.functional.ctc_loss(logits.log_softmax(-1), **call, reduction="none")
    with watch(on_error="log", on_warning="log", sinks=()) as guard:
        guard.observe(log_probs=logits, batch_first=False, **call, losses=losses)
    (verdict,) = guard.verdicts
    assert verdict.code == "CTC402"
    assert "CTC505" in [finding.code for finding in verdict.also]
