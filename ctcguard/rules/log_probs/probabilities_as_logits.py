"""CTC404 probabilities-as-logits."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.provenance import Provenance
from ctcguard.readings import Readings
from ctcguard.rules.log_probs._tolerance import ToleranceRule


class ProbabilitiesAsLogits(ToleranceRule):
    """## What it does

    Checks that a loss which applies the softmax itself (optax, Keras 3, TensorFlow, Paddle) is not given probabilities,
    nor log_softmax before a loss that wants log-probs (torch).

    ## Why is this bad?

    After the second softmax no class can have more than `e / (e + C - 1)` of a frame: 40% for 5 classes, 9% for 29. The
    loss is positive and falls a little, then stalls near `T ln C`. No framework says anything.

    ## In optax

    With a softmax before the loss, `[1, 2, 3]` on logits of zeros (10 frames, 5 classes) falls from 8.65 nats to 5.66
    in 100 updates by `optax.adam(0.1)` and to 5.65 in 400; without it, to 0.007. `guard_step` says
    `softmax-before-loss` at the first step and, where the traced program shows it, how the logits were made: `linear →
    softmax axis 2`.

    ## Likely causes

    - `softmax-before-loss`: every value is in [0, 1] and rows sum to 1: the last layer or the call applies softmax.
    - `softmax-before-log-softmax`: the autograd graph shows a softmax over the classes whose result went into another:
      the model ends in a softmax, and the training loop adds log_softmax.

    ## How to fix

    Remove the softmax (`activation="softmax"` of the last layer, too) and pass the logits. It worked when the finding
    is gone and the loss falls below `T ln C`.

    ## Thresholds

    - `float32_nats` (0.001), `float16_nats` (0.01), `bfloat16_nats` (0.05): how far a row sum may be from 1, by dtype.
    - `hint_nats` (nats, 0.01): not used here.

    ## Known problems

    Log-probs passed as logits are harmless (log_softmax of log-probs is the same again) and stay silent. Stays silent
    on NaN, which CTC403 reports, on sigmoid outputs, whose rows do not sum to 1, and when a label smoothing or a
    dropout after the softmax moved the sums. Looks at a sample of about 65,536 values.

    ## Example

    Fires:

    >>> import numpy as np, ctcguard
    >>> probabilities = np.asarray([[[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]]])
    >>> call = dict(targets=[[1]], input_lengths=[2], target_lengths=[1], blank=0)
    >>> ctcguard.diagnose(logits=probabilities, **call)[0].code
    'CTC404'

    Use instead:

    >>> ctcguard.diagnose(logits=np.log(probabilities) + 3.0, **call)
    ()

    ## References

    - https://github.com/mindee/doctr/pull/195 (softmax removed before the loss)
    - https://github.com/PaddlePaddle/Paddle/pull/33291 (the docs asked for log_probs where logits are meant)
    """

    code = "CTC404"
    severity = Severity.ERROR
    wants = (
        "expects",
        "sample_min",
        "sample_max",
        "row_sum_error",
        "softmax_dtype",
        "fits_bfloat16",
        "fits_float16",
        "provenance",
    )
    causes = ("softmax-before-loss", "softmax-before-log-softmax")
    explains = ("CTC504", "CTC505", "CTC701", "CTC702", "CTC703")
    aftermath = ("CTC701", "CTC702", "CTC703")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when all sampled logits are probabilities that sum to 1; NaN is left to CTC403."""
        if readings["expects"] != "logits":
            return self._twice(readings) if readings["provenance"].softmax_twice() else None
        low, high, error = (readings[name] for name in ("sample_min", "sample_max", "row_sum_error"))
        limit = self.limit(readings)
        probabilities = 0 <= low <= high <= 1 + limit.nats and error <= limit.nats
        if not probabilities:
            return None
        loss = readings.get("source") or "the loss"
        provenance: Provenance = readings["provenance"]
        made = f", made by {provenance}" if provenance.softmax() is not None else ""
        return self.finding(
            readings,
            cause="softmax-before-loss",
            evidence=f"every value is in [0, 1] (seen: {low:.3g} to {high:.3g}) and rows sum to 1{made}",
            message=f"{loss} applies softmax itself and must be given logits, but was given probabilities",
            fix=f"remove the softmax: pass the output of the last layer to {loss} as it is",
            numbers={"sample_min": low, "sample_max": high, "row_sum_error": error},
        )

    def _twice(self, readings: Readings) -> Finding:
        spread = readings["sample_max"] - readings["sample_min"]
        return self.finding(
            readings,
            cause="softmax-before-log-softmax",
            evidence=f"made by {readings['provenance']}",
            message="log_softmax must be given logits, but was given probabilities: log-probs of a frame can then "
            f"differ by 1 nat at most (seen: {spread:.3g})",
            fix="remove the first softmax: apply log_softmax(x, -1) to the output of the last layer",
            numbers={"sample_min": readings["sample_min"], "sample_max": readings["sample_max"]},
        )
