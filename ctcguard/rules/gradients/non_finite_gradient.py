"""CTC601 non-finite-gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class Cause(NamedTuple):
    """A cause slug, what selected it, what to write instead, and the utterances concerned with a note on each."""

    slug: str
    evidence: str
    fix: str
    affected: tuple[int, ...] = ()
    note: Callable[[int], str] = str


BACKWARD = Cause(
    "backward",
    "no loss and no padded frame of this step is known to be bad: it arose in the backward pass",
    "run one step within torch.autograd.detect_anomaly(), which names the operation; compute head and loss in float32",
)


class NonFiniteGradient(Rule):
    """## What it does

    Checks, just before an optimizer steps, that no gradient holds a NaN or an infinity.

    ## Why is this bad?

    One step spreads it over nearly every weight (measured: 52 of 53 tensors after one step of AdamW), and from then on
    all losses are NaN. Gradient clipping does not help: it divides by a norm that is NaN. The loss itself may look
    right: torch gives a finite loss and a NaN gradient when only padded frames are NaN.

    ## In optax

    Not seen: gradients never leave the compiled step. A NaN loss is CTC403 or CTC502 at its own step, but with `where`
    behind a linear head of zeros, over padded features that are NaN, the losses are right (8.65 and 6.74 nats) and
    every weight is NaN after one update; the next call is CTC403, `whole-batch`. `jax.config.update("jax_debug_nans",
    True)` stops at the first NaN.

    ## Likely causes

    - `loss`: a loss of this step was NaN or infinite (CTC301, CTC403, CTC502).
    - `padded-frames`: the losses are finite, but frames beyond `input_lengths` hold NaN or infinities, and the backward
      pass of log_softmax reads them.
    - `masking`: the losses are finite, but scores hold −inf (classes masked out), of which the backward pass makes NaN.
    - `backward`: none of these: an overflow in the backward pass, a log or root of 0, a division by a tiny deviation.

    ## How to fix

    `padded-frames`: put 0 into padded frames before the loss, `x.masked_fill(~valid, 0)`. `backward`: run one step
    within `torch.autograd.detect_anomaly()`, which names the operation; compute the head and the loss in float32. It
    worked when the norm of the gradient is a number again.

    ## Thresholds

    None.

    ## Known problems

    GradScaler finds infinities itself and then skips the optimizer, so that nothing is said here; with a scaler of your
    own, ignore this rule. The weights of later calls are not to be trusted when the step was taken: their findings are
    told as aftermath of this one.

    ## Example

    Fires:

    >>> from ctcguard.readings import Readings
    >>> readings = Readings({"gradient_abs_max": float("nan"), "gradient_parameter": "head.weight"})
    >>> found = NonFiniteGradient().check(readings)
    >>> found.cause, found.message
    ('backward', 'every gradient must be finite, but the largest is nan, first in head.weight')

    Use instead:

    >>> NonFiniteGradient().check(Readings({"gradient_abs_max": 0.7}))

    ## References

    - https://github.com/k2-fsa/icefall/issues/1352 (one batch, and every parameter is NaN)
    - https://github.com/pytorch/pytorch/issues/14401
    """

    code = "CTC601"
    severity = Severity.ERROR
    wants = ("gradient_abs_max",)
    causes = ("loss", "padded-frames", "masking", "backward")
    explains = ()
    aftermath = ("CTC401", "CTC402", "CTC403", "CTC501", "CTC502", "CTC503", "CTC504", "CTC507", "CTC601", "CTC604")
    shared = True

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the largest gradient is NaN or infinite."""
        largest = readings["gradient_abs_max"]
        if np.isfinite(largest):
            return None
        cause = _bad_loss(readings) or _bad_padding(readings) or _masked(readings) or BACKWARD
        parameter = str(readings.get("gradient_parameter") or "")
        first = f", first in {parameter}" if parameter else ""
        return self.finding(
            readings,
            cause=cause.slug,
            evidence=cause.evidence,
            message=f"every gradient must be finite, but the largest is {largest}{first}",
            fix=cause.fix,
            numbers={"gradient_abs_max": largest, "gradient_parameter": parameter},
            affected=cause.affected,
            note=cause.note,
        )


def _bad_loss(readings: Readings) -> Cause | None:
    losses = np.asarray(readings.get("losses", ()))
    bad = np.flatnonzero(~np.isfinite(losses))
    if bad.size == 0:
        return None
    evidence = f"{bad.size} of {losses.size} losses of this step are not finite"
    fix = f"look at utterance {bad[0]}, whose loss is {losses[bad[0]]}: see CTC502, CTC403 and CTC301"
    return Cause("loss", evidence, fix, tuple(bad), lambda i: f"loss {losses[i]}")


def _masked(readings: Readings) -> Cause | None:
    share = readings.get("minus_inf_fraction", 0.0)
    if not share > 0:
        return None
    evidence = f"the losses are finite, but {share:.1%} of the scores are -inf, which the backward pass turns into NaN"
    return Cause("masking", evidence, "mask with a large finite number: logits.masked_fill(mask, -1e4)")


def _bad_padding(readings: Readings) -> Cause | None:
    padding = np.asarray(readings.get("non_finite_padding_frames", ()))
    bad = np.flatnonzero(padding > 0)
    if bad.size == 0:
        return None
    evidence = f"the losses are finite, but {padding.sum():.0f} frames beyond input_lengths are not"
    fix = "put 0 into padded frames before the loss: x = x.masked_fill(~valid[..., None], 0)"
    return Cause("padded-frames", evidence, fix, tuple(bad), lambda i: f"{padding[i]:.0f} padded frames are not finite")
