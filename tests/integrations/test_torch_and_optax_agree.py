"""The same calls through torch and through optax: the same codes, causes and severities, or a written reason."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from ctcguard import guard_step, watch
from ctcguard.finding import Finding, Severity

BATCH, FRAMES, CLASSES, LABELS = 4, 40, 12, 6
Same = set[tuple[str, str, str]]
QUIET: dict[str, Any] = {"sinks": (), "on_error": "log", "on_warning": "log"}


class Given(NamedTuple):
    """One call, in the terms of neither framework."""

    logits: np.ndarray
    targets: np.ndarray
    input_lengths: np.ndarray
    target_lengths: np.ndarray
    blank: int
    vocabulary: Any
    softmax: str  # what comes between the logits and the loss: as it must be, a softmax, or a log-softmax too many


def healthy() -> dict[str, Any]:
    random = np.random.default_rng(5)
    targets = np.stack([random.permutation(np.arange(1, CLASSES))[:LABELS] for _ in range(BATCH)])
    return {
        "logits": random.normal(size=(BATCH, FRAMES, CLASSES)).astype(np.float32),
        "targets": targets,
        "input_lengths": np.asarray([FRAMES, 36, 30, 22]),
        "target_lengths": np.asarray([LABELS, LABELS, 5, 4]),
        "blank": 0,
        "vocabulary": None,
        "softmax": "right",
    }


def given(**changes: Any) -> Given:
    return Given(**{**healthy(), **changes})


def with_targets(*cells: tuple[int, int, int], **changes: Any) -> Given:
    targets = healthy()["targets"]
    for row, column, label in cells:
        targets[row, column] = label
    return given(targets=targets, **changes)


def with_logits(*places: tuple[Any, float], scale: float = 1.0, **changes: Any) -> Given:
    logits = healthy()["logits"] * scale
    for place, value in places:
        logits[place] = value
    return given(logits=logits, **changes)


def of_optax(call: Given) -> list[Finding]:
    """As a user trains: jitted, with a gradient; lengths as paddings."""

    @jax.jit
    def step(logits: Any, frame_paddings: Any, labels: Any, label_paddings: Any) -> Any:
        def loss(x: Any) -> Any:
            x = {"right": lambda x: x, "probabilities": jax.nn.softmax, "twice": jax.nn.log_softmax}[call.softmax](x)
            return optax.ctc_loss(x, frame_paddings, labels, label_paddings, blank_id=call.blank).mean()

        return jax.value_and_grad(loss)(logits)

    guarded = guard_step(step, vocabulary=call.vocabulary, **QUIET)
    frame_paddings = np.arange(call.logits.shape[1])[None] >= call.input_lengths[:, None]
    label_paddings = np.arange(call.targets.shape[1])[None] >= call.target_lengths[:, None]
    with suppress(TypeError):  # optax's own, for a blank beyond the head
        guarded(
            jnp.asarray(call.logits), frame_paddings.astype(np.float32), call.targets, label_paddings.astype(np.float32)
        )
    guarded.close()
    return guarded.findings


def of_torch(call: Given) -> list[Finding]:
    """The same numbers: log_softmax, the loss, an optimizer's step."""
    with watch(vocabulary=call.vocabulary, **QUIET) as guarded, suppress(RuntimeError):  # torch's own
        weights = torch.nn.Parameter(torch.tensor(call.logits))
        targets, lengths = torch.tensor(call.targets), (call.input_lengths.tolist(), call.target_lengths.tolist())
        softmax = torch.softmax if call.softmax == "probabilities" else torch.log_softmax
        scores = softmax(torch.log_softmax(weights, -1) if call.softmax == "twice" else weights, -1)
        log_probs = scores.transpose(0, 1)
        torch.nn.functional.ctc_loss(log_probs, targets, *lengths, blank=call.blank).backward()
        torch.optim.SGD([weights], lr=0.0).step()
    return guarded.findings


LETTERS = ["<blank>", *"abcdefghijk"]
CASES: dict[str, Given] = {
    "healthy": given(),
    "blank last": given(blank=CLASSES - 1, targets=healthy()["targets"] - 1),
    "with its vocabulary": given(vocabulary=LETTERS),
    "one utterance": given(**{k: v[:1] for k, v in healthy().items() if isinstance(v, np.ndarray)}),
    "certain": with_logits(((slice(None), slice(None), 0), 40.0)),
    "large logits": with_logits(scale=30.0),
    "uniform": with_logits(scale=0.0),
    "exactly enough frames": given(input_lengths=np.asarray([FRAMES, LABELS, 5, 4])),
    "an empty target": given(target_lengths=np.asarray([LABELS, LABELS, 0, 4])),
    "garbage labels in the padding": with_targets((3, 4, 99), (3, 5, -100)),
    "label beyond the head": with_targets((0, 2, CLASSES + 1)),
    "label just beyond the head": with_targets((0, 2, CLASSES)),
    "all labels beyond the head": with_targets(*((0, column, CLASSES + column) for column in range(1, LABELS))),
    "ignore index counted": with_targets((1, 5, -100)),
    "padding of -1 counted": with_targets((2, 4, -1)),
    "blank as padding counted": with_targets((0, 4, 0), (0, 5, 0), (1, 5, 0)),
    "blank inside": with_targets((0, 1, 0)),
    "too few frames": given(input_lengths=np.asarray([FRAMES, 36, 30, 2])),
    "too few for the repeats": with_targets((3, 0, 5), (3, 1, 5), input_lengths=np.asarray([FRAMES, 36, 30, 4])),
    "too few in most": given(input_lengths=np.asarray([FRAMES, 3, 3, 2])),
    "no frame": given(input_lengths=np.asarray([FRAMES, 36, 0, 22])),
    "all targets empty": given(target_lengths=np.zeros(BATCH, int), targets=np.full((BATCH, LABELS), 1)),
    "NaN in a frame": with_logits(((1, 3), np.nan)),
    "NaN everywhere": with_logits((..., np.nan)),
    "infinity in a frame": with_logits(((1, 3, 2), np.inf)),
    "NaN in the padding": with_logits(((3, slice(30, None)), np.nan)),
    "softmax before the loss": given(softmax="probabilities"),
    "one log-softmax too many": given(softmax="twice"),
    "head narrower than the vocabulary": given(vocabulary=[*LETTERS, "l", "m"]),
    "another blank than the vocabulary's": given(vocabulary=[*"abcdefghijk", "<blank>"], blank=0),
    "blank beyond the head": given(blank=CLASSES),
}

NOT_A_NUMBER: Same = {("CTC401", "not-a-number", "error"), ("CTC402", "not-a-number", "error")}
ONE_E5 = ({("CTC502", "infinite", "error")}, {("CTC503", "large-constant", "warning")}, "optax writes 1e5 for infinity")
LOG_PROBS = (NOT_A_NUMBER, set(), "optax is given no log-probs: their sum is not its symptom")

# What only torch shows, what only optax shows, and why; everything else must be equal.
REASONS: dict[str, tuple[Same, Same, str]] = {
    "all labels beyond the head": (
        set(),
        {("CTC501", "negative", "error")},
        "such labels cost nothing in optax; torch reads other memory",
    ),
    "too few frames": ONE_E5,
    "too few for the repeats": ONE_E5,
    "too few in most": ONE_E5,
    "no frame": ONE_E5,
    "NaN in a frame": LOG_PROBS,
    "NaN everywhere": LOG_PROBS,
    "infinity in a frame": (
        NOT_A_NUMBER | {("CTC403", "non-finite-features", "error")},
        {("CTC403", "overflow", "error")},
        "torch is given what log_softmax makes of +inf: NaN",
    ),
    "NaN in the padding": (
        set(),
        {("CTC502", "padded-frames", "error")},
        "torch shows it in the gradient: CTC601",
    ),
    "softmax before the loss": (
        {("CTC402", "probabilities", "error"), ("CTC401", "positive", "error"), ("CTC501", "negative", "error")},
        {("CTC404", "softmax-before-loss", "error")},
        "torch's loss expects log-probs, that of optax logits",
    ),
}


def told(findings: list[Finding]) -> Same:
    """All but what torch's optimizer hook adds: in JAX the gradient never leaves the compiled step."""
    severe = [f for f in findings if f.severity is not Severity.INFORMATION]
    return {(f.code, f.cause, f.severity.value) for f in severe if not f.code.startswith("CTC6")}


@pytest.mark.parametrize("name", CASES)
def test_the_same_verdict(name: str) -> None:
    by_torch, by_optax = told(of_torch(CASES[name])), told(of_optax(CASES[name]))
    only_torch, only_optax, why = REASONS.get(name, (set(), set(), "there is no reason for a difference"))
    assert (by_torch - by_optax, by_optax - by_torch) == (only_torch, only_optax), why


def test_the_table_has_both_kinds() -> None:
    assert len(CASES) >= 20
    assert REASONS.keys() <= CASES.keys()
    found = {name: told(of_optax(CASES[name])) for name in ("healthy", "blank last", "ignore index counted")}
    assert [bool(findings) for findings in found.values()] == [False, False, True]
