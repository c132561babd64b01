"""CTC405."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from ctcguard import diagnose, guard_step
from ctcguard.finding import Finding, Severity
from ctcguard.provenance import UNKNOWN, Provenance, Step
from ctcguard.readings import Readings
from ctcguard.rules.log_probs.low_precision_log_probs import LowPrecisionLogProbs
from tests.reference.calls import of_torch

FRAMES = 1500


def readings(loss: float, deviation: float = 2e-3, **other: Any) -> Readings:
    """1,500 frames of bfloat16 that are off by 0.002 nats each: 3 nats."""
    values = {
        "expects": "log_probs",
        "losses": np.full(4, loss),
        "input_lengths": np.full(4, float(FRAMES)),
        "dtype": "float32",
        "softmax_dtype": "bfloat16",
        "fits_bfloat16": 1.0,
        "fits_float16": 1.0,
        "logsumexp_min": -deviation,
        "logsumexp_max": 1e-4,
        "provenance": UNKNOWN,
        "source": "torch.ctc_loss",
    }
    return Readings({**values, **other})


OF_OPTAX = {"expects": "logits", "source": "optax.ctc_loss", "dtype": "bfloat16"}
FLOAT32 = {"softmax_dtype": "float32", "fits_bfloat16": 0.0, "fits_float16": 0.0}


@pytest.mark.parametrize(
    "healthy",
    [
        readings(3.01),
        readings(4666.0),
        readings(0.0, deviation=0.0, logsumexp_max=0.0),
        readings(0.0, input_lengths=np.full(4, 249.0)),
        readings(0.5, **FLOAT32),
        readings(0.5, deviation=5.1e-2),
        readings(np.nan),
        readings(np.inf),
        readings(0.5, logsumexp_min=np.nan, logsumexp_max=np.nan),
        readings(0.5, losses=np.zeros(0), input_lengths=np.zeros(0)),
        readings(FRAMES * 2**-9 + 0.01, **OF_OPTAX),
        readings(FRAMES * 2**-12 + 0.01, **(OF_OPTAX | {"dtype": "float16"})),
        readings(0.0, **(OF_OPTAX | {"dtype": "float32"})),
    ],
)
def test_healthy(healthy: Readings) -> None:
    assert LowPrecisionLogProbs().check(healthy) is None


@pytest.mark.parametrize(
    ("sick", "severity", "cause", "said"),
    [
        (readings(2.99), "information", "softmax-in-half", "bfloat16 moves it by up to 3 nats in 1500 frames"),
        (readings(-0.0002), "information", "softmax-in-half", "the median loss is -0.0002"),
        (readings(2.9, fits_bfloat16=0.0, softmax_dtype="float16"), "information", "softmax-in-half", "float16 moves"),
        (readings(2.9, fits_bfloat16=0.0, softmax_dtype="float32"), "information", "softmax-in-half", "float16 moves"),
        (readings(2.9, **OF_OPTAX), "warning", "logits-in-half", "up to 2.9 nats"),
        (readings(0.3, input_lengths=np.full(4, 251.0)), "information", "softmax-in-half", "up to 0.5 nats in 251"),
        (
            readings(0.3, **(OF_OPTAX | {"dtype": "float16", "input_lengths": np.full(4, 3000.0)})),
            "warning",
            "logits-in-half",
            "float16 moves it",
        ),
        (readings(0.3, **(OF_OPTAX | {"source": "ctcguard.observe"})), "information", "logits-in-half", "bfloat16"),
    ],
)
def test_fires(sick: Readings, severity: str, cause: str, said: str) -> None:
    finding = LowPrecisionLogProbs().check(sick)
    assert finding is not None
    assert (finding.code, finding.severity, finding.cause) == ("CTC405", severity, cause)
    assert said in finding.message
    assert "float32" in finding.fix


def test_the_limits_can_be_set() -> None:
    assert LowPrecisionLogProbs(share=0.01).check(readings(299.0)) is not None
    assert LowPrecisionLogProbs(share=0.01).check(readings(301.0)) is None
    assert LowPrecisionLogProbs(least_nats=3.01).check(readings(0.1)) is None


def test_one_certain_utterance_does_not_speak_for_the_batch() -> None:
    assert LowPrecisionLogProbs().check(readings(0.0, losses=np.asarray([0.0, 40.0, 50.0, np.nan]))) is None


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"provenance": Provenance((Step("log_softmax", dtype="bfloat16"),))}, "the scores were made by log_softmax"),
        ({}, "every sampled value fits into bfloat16"),
        (OF_OPTAX, "the logits are bfloat16, and optax.ctc_loss applies the softmax"),
    ],
)
def test_the_evidence(other: dict[str, Any], said: str) -> None:
    finding = LowPrecisionLogProbs().check(readings(0.3, **other))
    assert finding is not None
    assert said in finding.evidence


# Real calls.


def confident(by: float, frames: int = FRAMES, classes: int = 5) -> tuple[Any, Any]:
    """Logits (frames, 1, classes) that say a label in every tenth frame, and its labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(frames, 1, classes, generator=generator)
    labels = torch.randint(1, classes, (frames // 10,), generator=generator)
    said = torch.arange(frames // 10) * (frames - 1) // (frames // 10)
    logits[:, 0, 0] += by
    logits[said, 0, 0] -= by
    logits[said, 0, labels] += by
    return logits, labels[None]


def found_in(log_probs: torch.Tensor, labels: torch.Tensor) -> list[Finding]:
    rules = (LowPrecisionLogProbs(),)
    seen = of_torch(log_probs, labels, [log_probs.shape[0]], [labels.shape[1]])
    return [finding for verdict in diagnose(rules=rules, **seen) for finding in verdict.findings()]


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("by", [0.0, 1.0, 4.0])
def test_a_softmax_in_half_precision_is_no_fault_while_there_is_something_to_learn(half: Any, by: float) -> None:
    logits, labels = confident(by)
    assert found_in(logits.to(half).log_softmax(-1).float(), labels) == []


@pytest.mark.parametrize("by", [0.0, 8.0, 15.0])
def test_float32_is_never_a_fault(by: float) -> None:
    logits, labels = confident(by)
    assert found_in(logits.log_softmax(-1), labels) == []
    assert found_in(logits.bfloat16().float().log_softmax(-1), labels) == []


@pytest.mark.parametrize(("half", "reads"), [(torch.bfloat16, 0.09), (torch.float16, 0.57)])
def test_a_loss_that_was_rounded_away_is_said(half: Any, reads: float) -> None:
    """0.7 nats in truth. The gradient of the logits is right all the same: within 3% of its norm."""
    logits, labels = confident(10.0)
    given = (labels, [FRAMES], [labels.shape[1]])
    exact = logits.to(half).double().requires_grad_()
    right = torch.nn.functional.ctc_loss(exact.log_softmax(-1), *given, reduction="sum")
    right.backward()
    assert right.item() == pytest.approx(0.7, rel=0.1)
    rounded = logits.to(half).requires_grad_()
    scores = rounded.log_softmax(-1).float()
    loss = torch.nn.functional.ctc_loss(scores, *given, reduction="sum")
    loss.backward()
    assert loss.item() == pytest.approx(reads, abs=0.06)
    assert exact.grad is not None
    assert rounded.grad is not None
    assert (rounded.grad.double() - exact.grad).norm() < 0.03 * exact.grad.norm()
    (finding,) = found_in(scores.detach(), labels)
    assert (finding.code, finding.severity) == ("CTC405", Severity.INFORMATION)
    assert finding.readings["noise_nats"] > 0.7


def of_optax(logits: Any, labels: Any) -> Any:
    losses = optax.ctc_loss(logits, jnp.zeros(logits.shape[:2]), labels, jnp.zeros(labels.shape))
    return losses.sum().astype(jnp.float32)


DIFFERENTIATED = jax.jit(jax.value_and_grad(of_optax))


def gradient(logits: Any, labels: Any) -> tuple[float, np.ndarray]:
    """Loss and gradient of optax, in the dtype of the logits."""
    value, found = DIFFERENTIATED(logits, labels)
    return float(value), np.asarray(found.astype(jnp.float32), np.float64)


@pytest.mark.parametrize(("by", "wrong"), [(6.0, 0.05), (8.0, 0.24), (10.0, 0.63), (15.0, 0.83)])
def test_what_the_page_says_of_optax(by: float, wrong: float) -> None:
    """The gradient of bfloat16 logits, against that of the same numbers in float32."""
    logits, labels = confident(by)
    half, targets = jnp.asarray(logits.permute(1, 0, 2).numpy()).astype(jnp.bfloat16), jnp.asarray(labels.numpy())
    _, right = gradient(half.astype(jnp.float32), targets)
    _, off = gradient(half, targets)
    assert np.linalg.norm(off - right) / np.linalg.norm(right) == pytest.approx(wrong, rel=0.25)


@pytest.mark.parametrize(("by", "said"), [(6.0, []), (10.0, [("CTC405", "warning")])])
def test_a_guarded_step_says_so(by: float, said: list[tuple[str, str]]) -> None:
    logits, labels = confident(by)
    guarded = guard_step(jax.jit(of_optax), sinks=(), on_error="log", on_warning="log")
    try:
        guarded(jnp.asarray(logits.permute(1, 0, 2).numpy()).astype(jnp.bfloat16), jnp.asarray(labels.numpy()))
    finally:
        guarded.close()
    assert [(finding.code, finding.severity) for finding in guarded.findings] == said
