"""CTC602 gradient-not-of-softmax."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.provenance import Provenance
from ctcguard.readings import Readings
from ctcguard.rules.log_probs._tolerance import ToleranceRule


class GradientNotOfSoftmax(ToleranceRule):
    """## What it does

    Checks that the gradient which `torch.ctc_loss` sends back is that of the loss, when something stands between the
    softmax and the loss. It is measured at the first call of a line of code, by running the backward pass from the loss
    to the softmax once on its own.

    ## Why is this bad?

    torch returns the gradient with respect to the *logits*: it subtracts the posterior from `exp(log_probs)`, as if
    nothing but a softmax lay behind. That adds the gradient of `sum(exp(log_probs))`, which is 0 only while every frame
    sums to 1. A temperature of 2 behind log_softmax made 53% of the gradient wrong, a clamp at −3 12%, a bonus of 1
    for the blank 23%. The loss itself is what it should be, and nothing else shows it.

    ## In optax

    Cannot happen: optax takes logits, applies log_softmax itself, and JAX differentiates all of it. With a temperature
    of 2 behind a log_softmax of one's own the gradient agrees with finite differences to 0.2%, as far as float32 goes.

    ## Likely causes

    - `altered-after-softmax`: a temperature, a clamp, a mask or a bias stands between the softmax and the loss.

    ## How to fix

    Apply it to the logits, and pass `log_softmax` of the result directly to the loss. It worked when the finding is
    gone.

    ## Thresholds

    - `share` (of the norm of the right gradient, 0.05): how much may be wrong.
    - `float32_nats` (nats, 0.0001), `float16_nats` (nats, 0.01), `bfloat16_nats` (nats, 0.05): frames that sum to 1 so
      closely, by the dtype in which the softmax ran, have the right gradient, whatever the graph looks like.
    - `hint_nats` (nats, 0.01): not used here.

    ## Known problems

    What changes the values but leaves every frame a distribution is right and stays silent: label smoothing of the
    probabilities, `log(softmax(x) + eps)`, a mixture, padded frames set to anything. Where the graph forks between
    softmax and loss, or goes through a function that is not known, nothing is measured. Usually CTC402 fires too and
    explains it; alone it fires for models so certain that their frames still sum nearly to 1.

    ## Example

    Fires:

    >>> from ctcguard.provenance import Provenance, Step
    >>> from ctcguard.readings import Readings
    >>> readings = Readings({
    ...     "wrong_gradient_fraction": 0.53, "provenance": Provenance((Step("log_softmax"), Step("divide"))),
    ...     "logsumexp_min": 0.0, "logsumexp_max": 4e-3, "softmax_dtype": "float32",
    ...     "fits_bfloat16": 0.0, "fits_float16": 0.0,
    ... })
    >>> found = GradientNotOfSoftmax().check(readings)
    >>> found.cause, found.evidence
    ('altered-after-softmax', 'after the log_softmax came: divide')

    Use instead:

    >>> GradientNotOfSoftmax().check(readings.with_values({"wrong_gradient_fraction": 1e-6}))

    ## References

    - https://github.com/pytorch/pytorch/issues/52241 and https://github.com/pytorch/pytorch/issues/127608
    - https://github.com/pytorch/pytorch/issues/181534 (gradcheck fails)
    - Graves et al., Connectionist Temporal Classification, ICML 2006, eq. 16
    """

    code = "CTC602"
    severity = Severity.WARNING
    wants = (
        "wrong_gradient_fraction",
        "provenance",
        "logsumexp_min",
        "logsumexp_max",
        "softmax_dtype",
        "fits_bfloat16",
        "fits_float16",
    )
    causes = ("altered-after-softmax",)
    explains = ()

    share: float = Field(0.05, ge=0, description="of the norm of the right gradient, how much may be wrong")
    float32_nats: float = Field(1e-4, ge=0, description="limit for float32 and float64; noise floor 7e-6 (measured)")

    def check(self, readings: Readings) -> Finding | None:
        """Fires on a wrong share above the limit; what is no number belongs to CTC403, CTC502 and CTC601."""
        wrong = float(readings["wrong_gradient_fraction"])
        deviation = float(np.max(np.abs([readings["logsumexp_min"], readings["logsumexp_max"]])))
        if not (wrong > self.share and deviation > self.limit(readings).nats):
            return None
        provenance: Provenance = readings["provenance"]
        altering = provenance.after_softmax()
        steps = ", ".join(str(step) for step in altering)
        first = altering[0].op if altering else "what comes after the softmax"
        return self.finding(
            readings,
            cause="altered-after-softmax",
            evidence=f"after the {provenance.softmax()} came: {steps}",
            message=f"the gradient of the logits is wrong by {wrong:.0%} of its norm (limit {self.share:.0%}): "
            "torch.ctc_loss gives that of a softmax, and that is not what stands before it",
            fix=f"apply {first} to the logits and pass log_softmax of the result directly to the loss",
            numbers={"wrong_gradient_fraction": wrong, "logsumexp_abs_max": deviation},
        )
