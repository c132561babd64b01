"""What optax makes of mistakes that only it knows: paddings instead of lengths, and free symbols."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ctcguard import guard_step
from ctcguard.finding import Finding, Severity

FRAMES, CLASSES = 40, 12
LENGTHS, COUNTS = np.asarray([FRAMES, 36, 30, 22]), np.asarray([6, 6, 5, 4])
NARROW = np.asarray([38, 36, 30, 24])


@jax.jit
def step(logits: Any, frame_paddings: Any, labels: Any, label_paddings: Any) -> Any:
    return optax.ctc_loss(logits, frame_paddings, labels, label_paddings)


def paddings(lengths: Any, size: int) -> np.ndarray:
    return (np.arange(size)[None] >= np.asarray(lengths)[:, None]).astype(np.float32)


def found(
    frames: Any = None, labels: Any = None, targets: Any = None, logits: Any = None, run: Any = step
) -> dict[str, Finding]:
    random = np.random.default_rng(1)
    whole = np.stack([random.permutation(np.arange(1, CLASSES))[:6] for _ in range(4)])
    values = (
        random.normal(size=(4, FRAMES, CLASSES)).astype(np.float32) if logits is None else logits,
        paddings(LENGTHS, FRAMES) if frames is None else frames,
        whole if targets is None else targets,
        paddings(COUNTS, 6) if labels is None else labels,
    )
    guarded = guard_step(run, sinks=(), on_error="log", on_warning="log")
    guarded(*map(jnp.asarray, values))
    guarded.close()
    return {finding.code: finding for finding in guarded.findings}


@pytest.mark.parametrize(
    ("frames", "cause", "severity"),
    [
        (1 - paddings(LENGTHS, FRAMES), "inverted-paddings", "error"),
        (1 - paddings(NARROW, FRAMES), "inverted-paddings", "warning"),
        (np.ones((4, FRAMES)), "all-padding", "error"),
        (paddings(LENGTHS, FRAMES)[:, ::-1], "not-right-padded", "information"),
        (np.tile([0.0, 0.0, 0.0, 1.0], (4, FRAMES // 4)), "not-right-padded", "warning"),
    ],
    ids=["inverted", "inverted, none full", "all ones", "left-padded", "scattered"],
)
def test_frame_paddings(frames: Any, cause: str, severity: str) -> None:
    findings = found(frames=frames)
    assert (findings["CTC302"].cause, findings["CTC302"].severity) == (cause, severity)
    if "inverted" in cause or "all" in cause:
        assert "1.0 where a frame is padding" in findings["CTC302"].fix


LONG = np.asarray([18, 8, 10, 12])
"""So many frames are valid; a mask in place of the paddings leaves the others, 22 to 32."""


@pytest.mark.parametrize("flat", [0.0, 0.2])
@pytest.mark.parametrize("on_the_left", [True, False])
def test_padding_is_known_by_its_scores(on_the_left: bool, flat: float) -> None:
    """Behind most models padded frames are nearly alike: on the left, or at the end, of which the mask is passed on."""
    valid = paddings(LONG, FRAMES) < 1
    valid = valid[:, ::-1] if on_the_left else valid
    random = np.random.default_rng(2).normal(size=(4, FRAMES, CLASSES)).astype(np.float32)
    findings = found(frames=~valid if on_the_left else valid, logits=random * np.where(valid, 1, flat)[..., None])
    told = ("not-right-padded", "information") if on_the_left else ("inverted-paddings", "warning")
    assert (findings["CTC302"].cause, findings["CTC302"].severity) == told


@pytest.mark.parametrize(
    ("labels", "cause"),
    [
        (1 - paddings(COUNTS, 6), "inverted-paddings"),
        (np.ones((4, 6)), "all-padding"),
        (paddings(COUNTS, 6)[:, ::-1], "inverted-paddings"),
        (np.tile([0.0, 1.0], (4, 3)), "not-right-padded"),
    ],
    ids=["inverted", "all ones", "left-padded", "scattered"],
)
def test_label_paddings(labels: Any, cause: str) -> None:
    findings = found(labels=labels)
    assert (findings["CTC303"].cause, findings["CTC303"].severity) == (cause, Severity.ERROR)


def test_right_paddings_are_silent() -> None:
    assert found() == {}
    assert found(frames=paddings(LENGTHS, FRAMES).astype(bool), labels=paddings(COUNTS, 6).astype(np.int32)) == {}
    assert found(frames=np.zeros((4, FRAMES)), labels=np.zeros((4, 6))) == {}


def test_a_batch_of_silence_is_no_inverted_padding() -> None:
    assert set(found(labels=np.ones((4, 6)), targets=np.zeros((4, 6), int))) == {"CTC204"}


def test_rounding_is_silent() -> None:
    certain = np.zeros((4, FRAMES, CLASSES), np.float32)
    certain[..., 0] = 17.0
    assert set(found(logits=certain, labels=np.ones((4, 6)), targets=np.zeros((4, 6), int))) == {"CTC204"}
    long = np.zeros((2, 3000, CLASSES), np.float32)
    long[..., 0] = 9.0
    empty = (np.zeros((2, 3000)), np.zeros((2, 6)), np.zeros((2, 6), int))
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        codes = found(frames=empty[0], labels=np.ones((2, 6)), targets=empty[2], logits=jnp.asarray(long, dtype))
        assert set(codes) <= {"CTC204", "CTC405"}  # information


def test_a_free_symbol_is_seen_before_the_loss_is_negative() -> None:
    targets = np.tile(np.arange(1, 7), (4, 1))
    targets[0, :3] = [CLASSES, CLASSES + 1, CLASSES + 2]
    findings = found(targets=targets, run=jax.jit(optax.ctc_loss_with_forward_probs))
    assert (findings["CTC401"].cause, set(findings["CTC401"].affected)) == ("free-symbol", {0})
    assert "CTC401" in findings["CTC201"].explains
    assert "CTC501" not in findings
    assert "CTC401" not in found(targets=targets)  # optax.ctc_loss drops them, and so does the compiler


def test_infeasible_utterances() -> None:
    findings = found(frames=paddings([FRAMES, 36, 30, 2], FRAMES))
    assert (findings["CTC301"].cause, findings["CTC503"].cause) == ("too-short", "large-constant")
    assert set(findings["CTC503"].affected) == {3}


def test_nan_in_the_padding_only() -> None:
    logits = np.random.default_rng(1).normal(size=(4, FRAMES, CLASSES)).astype(np.float32)
    logits[3, 30:] = np.nan
    findings = found(logits=logits)
    assert {code: finding.cause for code, finding in findings.items()} == {"CTC502": "padded-frames"}


@pytest.mark.parametrize(
    ("made", "codes"),
    [(jax.nn.softmax, {"CTC404"}), (jax.nn.log_softmax, set()), (lambda x: x * 3, set())],
    ids=["probabilities", "log-probs", "logits"],
)
def test_what_is_given_as_logits(made: Any, codes: set[str]) -> None:
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(4, FRAMES, CLASSES)), jnp.float32)
    assert set(found(logits=made(logits))) == codes


def test_forward_probabilities_are_the_original_ones() -> None:
    arguments = (np.zeros((1, 9, 4), np.float32), np.zeros((1, 9)), np.asarray([[1, 2]]), np.zeros((1, 2)))
    original = optax.ctc_loss_with_forward_probs(*arguments)
    guarded = guard_step(optax.ctc_loss_with_forward_probs, sinks=())
    for ours, own in zip(guarded(*arguments), original, strict=True):
        assert np.array_equal(ours, own)
    assert guarded.guard.calls == 1
    guarded.close()
