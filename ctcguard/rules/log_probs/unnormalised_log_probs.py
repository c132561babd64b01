"""CTC402 unnormalised-log-probs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctcguard.finding import Finding, Severity
from ctcguard.provenance import Provenance
from ctcguard.readings import Readings
from ctcguard.rules.log_probs._tolerance import ToleranceRule


class Cause(NamedTuple):
    """A cause slug, what selected it, and what to write instead."""

    slug: str
    evidence: str
    fix: str


class UnnormalisedLogProbs(ToleranceRule):
    """## What it does

    Checks that the classes of every sampled valid frame sum to 1, so that their logsumexp is 0, as `log_softmax` leaves
    them.

    ## Why is this bad?

    `torch.nn.CTCLoss` believes whatever it is given. With raw logits or with probabilities the loss can be made as low
    as you like by adding a constant to the scores: it goes negative, training "works", and nothing is learned. With
    raw logits it may also stay positive and look perfectly healthy. optax and Keras apply `log_softmax` themselves and
    cannot show this fault.

    ## In optax

    It cannot occur: optax applies log_softmax itself, to whatever it is given. A log_softmax over the classes before it
    changes nothing; one over time is not seen and does harm: `[1, 2, 3]` on logits of zeros (10 frames, 5 classes) is
    at 0.30 nats after 400 updates by `optax.adam(0.1)`, not at 0.007. A loss of one's own is judged with
    `observe(log_probs=…)` beside it.

    ## Likely causes

    - `probabilities`: every value is in [0, 1] and rows sum to 1: `softmax` instead of `log_softmax`.
    - `wrong-axis`: the values are normalised over time or over the batch instead of the classes, or the autograd graph
      shows a softmax over that axis.
    - `raw-logits`: there are positive values, or no softmax stands between the last layer and the loss.
    - `altered-after-softmax`: all values are ≤ 0, or the graph shows a softmax followed by a temperature, label
      smoothing, a clamp or a mask. torch returns the gradient of the *logits*, so the gradient is wrong as well.
    - `not-a-number`: the sum is NaN; CTC403 says why.

    ## How to fix

    Pass `log_softmax(x, -1)`, over the class axis, directly into the loss, with nothing in between. It worked when the
    finding is gone and the loss of a fresh model is near `T ln C - ln binom(T + U - r, 2U)`.

    ## Thresholds

    - `float32_nats` (nats, 0.001), `float16_nats` (nats, 0.01), `bfloat16_nats` (nats, 0.05): by the dtype in which the
      softmax ran; 2.6 to 140 times the noise floor measured for 32 to 32,000 classes.
    - `hint_nats` (nats, 0.01): up to here it is information only.

    ## Known problems

    Fires on purpose-made scores that are no distribution (for example when a constant is added to favour blanks).
    Stays silent when only few frames are wrong and the sample (about 65,536 values) misses them.

    ## Example

    Fires:

    >>> import numpy as np, ctcguard
    >>> probabilities = np.full((1, 20, 4), 0.25)
    >>> call = dict(targets=[[1, 2]], input_lengths=[20], target_lengths=[2], blank=0)
    >>> [finding.code for finding in ctcguard.diagnose(log_probs=probabilities, **call)[0].findings()]
    ['CTC402', 'CTC401']

    Use instead:

    >>> ctcguard.diagnose(log_probs=np.log(probabilities), **call)
    ()

    ## References

    - https://github.com/SeanNaren/deepspeech.pytorch/issues/488 (raw logits)
    - https://github.com/gwx314/STARS/issues/9 (raw logits)
    - https://github.com/pytorch/pytorch/issues/52241 (the gradient is that of the logits)
    - https://discuss.pytorch.org/t/200771 (CTC loss is negative)
    """

    code = "CTC402"
    wants = (
        "expects",
        "softmax_dtype",
        "logsumexp_min",
        "logsumexp_max",
        "fits_bfloat16",
        "fits_float16",
        "provenance",
    )
    causes = ("probabilities", "wrong-axis", "raw-logits", "altered-after-softmax", "not-a-number")
    explains = ("CTC401", "CTC501", "CTC504", "CTC505", "CTC602")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when a sampled valid frame does not sum to 1."""
        if readings["expects"] != "log_probs":
            return None
        low, high = readings["logsumexp_min"], readings["logsumexp_max"]
        worst = high if abs(high) >= abs(low) or np.isnan(high) else low
        if abs(worst) <= self.lowest_limit():
            return None
        limit = self.limit(readings)
        if abs(worst) <= limit.nats:
            return None
        cause = self._cause(readings, limit.nats)
        mild = abs(worst) <= self.hint_limit(readings)
        return self.finding(
            readings,
            cause=cause.slug,
            evidence=cause.evidence,
            message=f"the classes of a frame must sum to 1 but sum to e^{worst:.3g} "
            f"(limit ±{limit.nats:g} nats for {limit.dtype})",
            fix=cause.fix,
            numbers={"logsumexp_min": low, "logsumexp_max": high, "limit_nats": limit.nats},
            severity=Severity.INFORMATION if mild else None,
        )

    def _cause(self, readings: Readings, limit: float) -> Cause:
        provenance: Provenance = readings["provenance"]
        if np.isnan(readings["logsumexp_max"]):
            return Cause("not-a-number", "the sum is NaN", "find where the NaN comes from: see CTC403")
        return (
            _probabilities(readings, limit) or _wrong_axis(readings, provenance, limit) or _rest(readings, provenance)
        )


def _probabilities(readings: Readings, limit: float) -> Cause | None:
    low, high = readings["sample_min"], readings["sample_max"]
    if low >= 0 and high <= 1 + limit and readings["row_sum_error"] <= limit:
        evidence = f"every value is in [0, 1] (seen: {low:.3g} to {high:.3g}) and rows sum to 1"
        return Cause("probabilities", evidence, "pass log_softmax(x, -1) instead of softmax(x, -1)")
    return None


def _wrong_axis(readings: Readings, provenance: Provenance, limit: float) -> Cause | None:
    fix = "normalise over the classes: log_softmax(x, dim=-1) before any transpose of the class axis"
    softmax = provenance.softmax()
    if softmax is not None and softmax.class_axis is not None and softmax.axis != softmax.class_axis:
        evidence = (
            f"{softmax.op} ran over axis {softmax.axis} of {softmax.shape}, the classes are axis {softmax.class_axis}"
        )
        return Cause("wrong-axis", evidence, fix)
    for axis, size in (("time", readings["frames"]), ("batch", readings["batch"])):
        if size > 1 and readings[f"logsumexp_{axis}_abs_max"] <= limit:
            return Cause("wrong-axis", f"the values are normalised over the {axis} axis", fix)
    return None


def _rest(readings: Readings, provenance: Provenance) -> Cause:
    altering = provenance.after_softmax()
    if altering:
        steps = ", ".join(str(step) for step in altering)
        fix = f"apply {altering[0].op} to the logits and pass log_softmax of the result directly to the loss"
        return Cause("altered-after-softmax", f"after the {provenance.softmax()} came: {steps}", fix)
    fix = "pass log_softmax(x, -1) instead of x: this loss applies no softmax itself"
    if provenance.reaches_head and provenance.softmax() is None:
        return Cause("raw-logits", f"no softmax between the last layer and the loss ({provenance})", fix)
    if readings["sample_max"] > 0:
        return Cause(
            "raw-logits", f"values reach {readings['sample_max']:.3g}; a log-probability is never above 0", fix
        )
    evidence = "all values are ≤ 0, so a softmax ran, but something changed them afterwards"
    return Cause(
        "altered-after-softmax", evidence, "pass log_softmax(x, -1) directly to the loss, with nothing in between"
    )
