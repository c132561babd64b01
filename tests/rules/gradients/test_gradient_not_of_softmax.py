"""CTC602."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from ctcguard import watch
from ctcguard.provenance import Provenance, Step
from ctcguard.readings import Readings
from ctcguard.rules.gradients.gradient_not_of_softmax import GradientNotOfSoftmax

Make = Callable[[torch.Tensor], torch.Tensor]
FRAMES, CLASSES = 24, 5
TARGETS, INPUT_LENGTHS, TARGET_LENGTHS = [[1, 2, 2], [4, 3, 1]], [24, 17], [3, 2]
BEYOND = torch.arange(FRAMES)[:, None, None] >= torch.tensor(INPUT_LENGTHS)[None, :, None]


def readings(wrong: float, deviation: float = 0.01, dtype: str = "float32", **other: Any) -> Readings:
    values = {
        "wrong_gradient_fraction": wrong,
        "logsumexp_min": -deviation,
        "logsumexp_max": 0.0,
        "softmax_dtype": dtype,
        "fits_bfloat16": 0.0,
        "fits_float16": 0.0,
        "provenance": Provenance((Step("linear"), Step("log_softmax"), Step("divide"), Step("transpose"))),
    }
    return Readings({**values, **other})


@pytest.mark.parametrize(
    "healthy",
    [
        readings(0.0),
        readings(0.05),
        readings(0.9, deviation=1e-4),
        readings(0.9, deviation=1e-2, dtype="float16"),
        readings(0.9, deviation=5e-2, dtype="bfloat16"),
        readings(0.9, deviation=5e-2, fits_bfloat16=1.0),
        readings(np.nan),
        readings(0.9, deviation=np.nan),
    ],
)
def test_healthy(healthy: Readings) -> None:
    assert GradientNotOfSoftmax().check(healthy) is None


@pytest.mark.parametrize(
    "sick",
    [
        readings(0.051),
        readings(0.051, deviation=1.01e-4),
        readings(0.051, deviation=1.01e-2, dtype="float16"),
        readings(0.051, deviation=5.01e-2, dtype="bfloat16"),
        readings(np.inf),
        readings(0.051, deviation=np.inf),
    ],
)
def test_fires(sick: Readings) -> None:
    finding = GradientNotOfSoftmax().check(sick)
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC602", "altered-after-softmax", "warning")
    assert "(limit 5%)" in finding.message
    assert finding.evidence == "after the log_softmax came: divide"
    assert finding.fix.startswith("apply divide to the logits")


def test_the_share_can_be_set() -> None:
    assert GradientNotOfSoftmax(share=0.5).check(readings(0.49)) is None
    assert GradientNotOfSoftmax(share=0.5).check(readings(0.51)) is not None


# Against finite differences.


def ctc(log_probs: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.ctc_loss(
        log_probs, torch.tensor(TARGETS), torch.tensor(INPUT_LENGTHS), torch.tensor(TARGET_LENGTHS), reduction="sum"
    )


def logits(certainty: float = 0.0) -> torch.Tensor:
    """Random, or so that the labels are read with that certainty."""
    x = 0.3 * torch.randn(FRAMES, 2, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    said = torch.zeros(FRAMES, 2, dtype=torch.long)
    for utterance in range(2):
        for place, label in enumerate(TARGETS[utterance][: TARGET_LENGTHS[utterance]]):
            said[5 * place, utterance] = label
    return x + certainty * torch.nn.functional.one_hot(said, CLASSES)


def numeric_error(make: Make, x: torch.Tensor) -> float:
    """How far the gradient that torch gives is from central differences, as a share of their norm."""
    right = torch.zeros_like(x).reshape(-1)
    with torch.no_grad():
        for i in range(right.numel()):
            step = torch.zeros_like(right)
            step[i] = 1e-5
            above, below = (ctc(make(x + sign * step.reshape(x.shape))) for sign in (1, -1))
            right[i] = (above - below) / 2e-5
    given = x.clone().requires_grad_()
    ctc(make(given)).backward()
    assert given.grad is not None
    return float((given.grad.reshape(-1) - right).norm() / right.norm())


def guarded(make: Make, x: torch.Tensor) -> list[tuple[str, str, list[str]]]:
    """Verdicts that are more than information: code, severity and symptoms."""
    head = torch.nn.Linear(CLASSES, CLASSES, dtype=torch.float64)
    torch.nn.init.eye_(head.weight)
    torch.nn.init.zeros_(head.bias)
    with watch(sinks=(), on_error="log", on_warning="log") as guard:
        ctc(make(head(x))).backward()
    found = [(verdict.code, str(verdict.root.severity), [f.code for f in verdict.also]) for verdict in guard.verdicts]
    return [verdict for verdict in found if verdict[1] != "information"]


def normalised_without_gradient(x: torch.Tensor) -> torch.Tensor:
    """A bonus for the blank, and a normalisation that autograd does not know of."""
    scores = x.log_softmax(-1) + 1.0 * (torch.arange(CLASSES) == 0)
    return scores - scores.detach().logsumexp(-1, keepdim=True)


def blended(x: torch.Tensor) -> torch.Tensor:
    return torch.logaddexp(x.log_softmax(-1), (0.5 * x).log_softmax(-1)) - np.log(2)


RIGHT: dict[str, Make] = {
    "log_softmax": lambda x: x.log_softmax(-1),
    "twice": lambda x: x.log_softmax(-1).log_softmax(-1),
    "label smoothing of the probabilities": lambda x: (0.9 * x.softmax(-1) + 0.1 / CLASSES).log(),
    "label smoothing by way of exp": lambda x: (0.9 * x.log_softmax(-1).exp() + 0.1 / CLASSES).log(),
    "log(softmax + eps)": lambda x: (x.softmax(-1) + 1e-4).log(),
    "a temperature of 1": lambda x: x.log_softmax(-1) / 1.0,
    "padded frames filled": lambda x: x.log_softmax(-1).masked_fill(BEYOND, 0.0),
    "padded frames multiplied": lambda x: x.log_softmax(-1) * ~BEYOND,
    "padded frames by where": lambda x: torch.where(BEYOND, torch.zeros((), dtype=x.dtype), x.log_softmax(-1)),
    "clamped far below": lambda x: x.log_softmax(-1).clamp(min=-40),
    "normalised again": lambda x: (x.log_softmax(-1) / 2).log_softmax(-1),
    "normalised again, by hand": normalised_without_gradient,
    "a mixture": blended,
    "cast and turned": lambda x: x.transpose(0, 1).log_softmax(-1).float().double().transpose(0, 1),
}


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("certainty", [0.0, 6.0])
def test_what_leaves_a_distribution_has_the_right_gradient_and_stays_silent(name: str, certainty: float) -> None:
    x = logits(certainty)
    if "cast" not in name:  # float32 in between: differences of 1e-5 drown in its rounding
        assert numeric_error(RIGHT[name], x) < 1e-6
    assert guarded(RIGHT[name], x) == []


def measured(make: Make, x: torch.Tensor) -> list[float]:
    """What the guard measured, where CTC602 fired."""
    head = torch.nn.Linear(CLASSES, CLASSES, dtype=torch.float64)
    torch.nn.init.eye_(head.weight)
    torch.nn.init.zeros_(head.bias)
    with watch(sinks=(), on_error="log", on_warning="log") as guard:
        ctc(make(head(x)))
    return [f.readings["wrong_gradient_fraction"] for f in guard.findings if f.code == "CTC602"]


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.log_softmax(-1) / 2,
        lambda x: x.log_softmax(-1).clamp(min=-1.7),
        lambda x: x.log_softmax(-1) + 1.0 * (torch.arange(CLASSES) == 0),
        lambda x: x.log_softmax(-1).masked_fill(torch.arange(CLASSES) == 0, -30.0),
        lambda x: (x.softmax(-1) * (1 + torch.arange(CLASSES))).log(),
    ],
)
def test_what_does_not_has_a_wrong_gradient_and_is_a_symptom_of_ctc402(make: Make) -> None:
    x = logits()
    wrong = numeric_error(make, x)
    assert wrong > 0.05
    assert measured(make, x) == [pytest.approx(wrong, rel=1e-3)]
    (verdict,) = guarded(make, x)
    assert verdict[:2] == ("CTC402", "error")
    assert "CTC602" in verdict[2]


def test_behind_an_operation_that_is_not_known_nothing_is_measured() -> None:
    def make(x: torch.Tensor) -> torch.Tensor:
        return x.softmax(-1).pow(0.5).log()

    assert numeric_error(make, logits()) > 0.05
    assert measured(make, logits()) == []
    assert [code for code, *_ in guarded(make, logits())] == ["CTC402"]


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.log_softmax(-1) * 2,
        lambda x: x.log_softmax(-1) * 1.1,
        lambda x: x.log_softmax(-1).clamp(min=-8),
    ],
)
def test_a_certain_model_whose_frames_still_sum_nearly_to_1(make: Make) -> None:
    """A fine-tuned model, say: CTC402 has at most a hint, but hardly anything of the gradient is right."""
    x = logits(9.0)
    wrong = numeric_error(make, x)
    assert wrong > 0.3
    assert measured(make, x) == [pytest.approx(wrong, rel=1e-3)]
    assert guarded(make, x) == [("CTC602", "warning", [])]


def test_the_bound_of_what_stays_silent() -> None:
    """Smoothing of log-probs on a fresh model: 402 is near, the gradient off by less than 5%."""

    def make(x: torch.Tensor) -> torch.Tensor:
        return 0.95 * x.log_softmax(-1) - 0.05 * np.log(CLASSES)

    x = 0.2 * logits()
    assert 1e-6 < numeric_error(make, x) < 0.02
    assert guarded(make, x) == []


def test_what_the_page_says_of_optax() -> None:
    """With a temperature behind a log_softmax of one's own."""
    x = jnp.asarray(logits().permute(1, 0, 2).numpy(), jnp.float32)
    frames = jnp.asarray(BEYOND[..., 0].T.numpy(), jnp.float32)
    ends = jnp.asarray([[0, 0, 0], [0, 0, 1]], jnp.float32)

    @jax.jit
    def loss(x: Any) -> Any:
        return optax.ctc_loss(jax.nn.log_softmax(x) / 2, frames, jnp.asarray(TARGETS), ends).sum()

    gradient, numeric = np.asarray(jax.grad(loss)(x)), np.zeros(x.shape)
    for place in np.ndindex(*x.shape):
        step = jnp.zeros(x.shape).at[place].set(1e-1)
        numeric[place] = (loss(x + step) - loss(x - step)) / 2e-1
    assert np.linalg.norm(gradient - numeric) < 2e-3 * np.linalg.norm(numeric)
