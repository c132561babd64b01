"""CTC405 low-precision-log-probs."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.provenance import UNKNOWN, Provenance
from ctcguard.readings import Readings
from ctcguard.rules.log_probs._tolerance import ToleranceRule

ROUNDING_NATS = {"bfloat16": 2**-9, "float16": 2**-12}
"""Half of the step below 1, as a probability or in nats: where a confident model rounds to certainty."""


class LowPrecisionLogProbs(ToleranceRule):
    """## What it does

    Checks that a softmax in half precision does not round away the loss: that what it may add or take over all frames
    is less than the loss itself, or hardly anything.

    ## Why is this bad?

    Early in training it is not: nothing is said then. A confident model is rounded to certainty: over 1,500 frames a
    loss of 0.71 nats reads 0.08 in bfloat16, 0.58 in float16, and one of 0.005 reads −0.0002. Checkpoints and stopping
    rules that go by the loss then go by noise. torch's gradient does not suffer (measured: off by at most 3% of its
    norm), for its backward pass goes by the posterior.

    ## In optax

    Here the gradient suffers too, for it is that of a softmax in half precision: over 1,500 frames of bfloat16 logits
    it is off by 5% of its norm at a loss of 37 nats, by 24% at 5.3, 63% at 0.73 and 83% at 0.005. So it is a warning.

    ## Likely causes

    - `softmax-in-half`: the softmax ran in bfloat16 or float16, whatever its result was cast to. Information.
    - `logits-in-half`: a loss that applies the softmax itself was given logits in half precision. A warning for optax;
      a loss of one's own may cast them first.

    ## How to fix

    Run the softmax in float32: `log_softmax(x, -1, dtype=torch.float32)`, outside of autocast or with
    `x.float()`; in optax pass `logits.astype(jnp.float32)`. The layers before it may stay as they are. It worked when
    the finding is gone.

    ## Thresholds

    - `share` (of the loss, 1): how large the noise may be. It is taken as the worst deviation from a sum of 1 in one
      frame, in nats, times the frames; for logits as 2^-9 nats a frame in bfloat16 and 2^-12 in float16.
    - `least_nats` (nats, 0.5): noise below this is never said.
    - `float16_nats` (nats, 0.01), `bfloat16_nats` (nats, 0.05): a frame further than this from a sum of 1, by the dtype
      in which the softmax ran, is CTC402's. `float32_nats` (nats, 0.001) and `hint_nats` (nats, 0.01): not used here.

    ## Known problems

    The estimate is an upper one: for uncertain models the errors of frames cancel out and are ten times smaller. It
    is compared in the middle of a batch, not for each utterance. float32 scores of which every sampled value happens to
    fit into half precision are taken for half precision.

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> confident = dict(
    ...     expects="log_probs", dtype="float32", softmax_dtype="bfloat16", fits_bfloat16=1.0, fits_float16=0.0,
    ...     logsumexp_min=0.0, logsumexp_max=2e-3, input_lengths=np.full(4, 1500.0),
    ... )
    >>> found = LowPrecisionLogProbs().check(Readings({**confident, "losses": np.full(4, 0.08)}))
    >>> found.code, found.cause, found.severity.value
    ('CTC405', 'softmax-in-half', 'information')

    Use instead:

    >>> LowPrecisionLogProbs().check(Readings({**confident, "losses": np.full(4, 4666.0)}))

    ## References

    - https://github.com/speechbrain/speechbrain/issues/1803 (softmax and loss under autocast)
    - https://github.com/google-deepmind/optax/issues/1020 (losses quantised by bfloat16 logits)
    """

    code = "CTC405"
    severity = Severity.INFORMATION
    wants = (
        "expects",
        "losses",
        "input_lengths",
        "dtype",
        "softmax_dtype",
        "fits_bfloat16",
        "fits_float16",
        "logsumexp_min",
        "logsumexp_max",
    )
    causes = ("softmax-in-half", "logits-in-half")
    explains = ()

    share: float = Field(1.0, ge=0, description="how large the noise may be, as a share of the loss")
    least_nats: float = Field(0.5, ge=0, description="noise in all frames of an utterance that is never said")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the noise of half precision exceeds the loss; what is no number belongs to CTC403 and CTC502."""
        losses, logits = readings.column("losses"), readings["expects"] == "logits"
        if not logits and readings.highest("input_lengths") * _deviation(readings) <= self.least_nats:
            return None
        dtype = str(readings["dtype"]) if logits else self.limit(readings).dtype
        if dtype not in ROUNDING_NATS or not np.isfinite(losses).any():
            return None
        loss, frames = np.median(losses[np.isfinite(losses)]), float(np.median(readings.column("input_lengths")))
        each = ROUNDING_NATS[dtype] if logits else _deviation(readings)
        each = each if logits or each <= self.limit(readings).nats else 0.0  # more than rounding
        if not frames * each > max(self.share * loss, self.least_nats):
            return None
        cause, fix = "softmax-in-half", "run the softmax in float32: log_softmax(x, -1, dtype=torch.float32)"
        if logits:
            cause, fix = "logits-in-half", "pass the logits in float32, for instance logits.astype(jnp.float32)"
        return self.finding(
            readings,
            cause=cause,
            evidence=_evidence(readings, dtype, logits),
            message=f"rounding must stay below the loss, but {dtype} moves it by up to {frames * each:.2g} nats in "
            f"{frames:.0f} frames, and the median loss is {loss:.3g}",
            fix=fix,
            numbers={"noise_nats": frames * each, "loss_median_nats": float(loss), "frames": frames},
            severity=Severity.WARNING if str(readings.get("source", "")).startswith("optax.") else None,
        )


def _deviation(readings: Readings) -> float:
    """How far the classes of a frame are from a sum of 1, at most, in nats."""
    return float(max(abs(readings["logsumexp_min"]), abs(readings["logsumexp_max"])))


def _evidence(readings: Readings, dtype: str, logits: bool) -> str:
    provenance: Provenance = readings.get("provenance", UNKNOWN)
    if logits:
        return f"the logits are {dtype}, and {readings.get('source') or 'the loss'} applies the softmax to them"
    if readings["softmax_dtype"] == dtype and provenance.softmax() is not None:
        return f"the scores were made by {provenance}"
    return f"every sampled value fits into {dtype}: the softmax ran in it, or its result was cast to it"
