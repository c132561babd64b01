"""CTC604 loss-scale-collapse."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class LossScaleCollapse(Rule):
    """## What it does

    Checks that the loss scale of `torch.amp.GradScaler` does not fall step after step.

    ## Why is this bad?

    The scaler skips the optimizer whenever a gradient is NaN or infinite, and lowers its scale. For an overflow that
    helps; a gradient that is NaN at any scale is skipped for ever: the loss is logged, the weights never move, and
    nothing raises. From 65,536 the scale is 0 after 165 such steps.

    ## In optax

    Not measured: optax has no scaler. Its `apply_if_finite` skips updates in the same silence, and accepts them after
    `max_consecutive_errors` in a row.

    ## Likely causes

    - `loss`: a loss of the last step was NaN or infinite; CTC403, CTC301 or CTC502 says why.
    - `gradient-overflow`: the losses are finite: the backward pass divides by 0 or overflows, before the loss or in
      another term of it.

    ## How to fix

    Run one step with `GradScaler(enabled=False)` within `torch.autograd.detect_anomaly()`, which names the operation.
    Compute head and loss in float32, use bfloat16 (it needs no scaler), or add an epsilon within roots and logarithms.
    It worked when the scale stays where it is for a thousand steps.

    ## Thresholds

    - `halvings` (steps in a row, 10): so many must have lowered the scale. 3 to 5 at the start are usual.
    - `least_scale` (0.0625): and the scale must be below this. A mean of CTC losses is at home at 1,000 and above; a
      sum over 32,000 frames still has no gradient that overflows float16 at 1.

    ## Known problems

    Other scalers than torch's own are not seen. A scale that was set by hand with `update(new_scale)` counts as a new
    beginning.

    ## Example

    Fires:

    >>> from ctcguard.readings import Readings
    >>> readings = Readings({"loss_scale": 0.03125, "loss_scale_halvings": 21})
    >>> found = LossScaleCollapse().check(readings)
    >>> found.cause, found.message
    ('gradient-overflow', 'the loss scale must settle, but fell in each of 21 steps in a row, to 0.03125')

    Use instead:

    >>> LossScaleCollapse().check(Readings({"loss_scale": 4096.0, "loss_scale_halvings": 4}))

    ## References

    - https://docs.pytorch.org/docs/stable/amp.html (a scale below 1: something is likely wrong)
    - https://github.com/facebookresearch/fairseq/issues/1529 (the scale falls to its minimum)
    - https://github.com/speechbrain/speechbrain/issues/1803 (CTC in float16)
    """

    code = "CTC604"
    severity = Severity.ERROR
    wants = ("loss_scale", "loss_scale_halvings")
    causes = ("loss", "gradient-overflow")
    explains = ()

    halvings: int = Field(10, ge=1, description="steps in a row that must have lowered the scale")
    least_scale: float = Field(0.0625, ge=0, description="a scale below which it is no calibration any more")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the scale is not at least the limit and has fallen for long enough."""
        scale, halvings = float(readings["loss_scale"]), readings["loss_scale_halvings"]
        if scale >= self.least_scale or halvings < self.halvings:
            return None
        losses = np.asarray(readings.get("losses", ()))
        bad = np.flatnonzero(~np.isfinite(losses))
        cause, evidence = "gradient-overflow", "the losses of the last step are finite: it arises in the backward pass"
        fix = "run one step without scaler within torch.autograd.detect_anomaly(), which names the operation"
        if bad.size:
            cause, evidence = "loss", f"{bad.size} of {losses.size} losses of the last step are not finite"
            fix = f"look at utterance {bad[0]}, whose loss is {losses[bad[0]]}: see CTC502, CTC403 and CTC301"
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message=f"the loss scale must settle, but fell in each of {halvings} steps in a row, to {scale:g}",
            fix=fix,
            numbers={"loss_scale": scale, "loss_scale_halvings": halvings},
        )
