"""CTC504 implausible-loss."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard._array import HostArray
from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.loss._alignments import least_loss, sound

COMPARE = (
    "compute utterance {i} again: F.ctc_loss(log_probs.double().cpu(), …, blank={blank}, reduction='none'); "
    "guard.observe must be given the loss of each utterance in nats, before any division"
)
UNHIDE = (
    "find what shows a failure of utterance {i} as 0 (zero_infinity, nan_to_num, an error code): it teaches nothing"
)


class ImplausibleLoss(Rule):
    """## What it does

    Checks that the loss of every utterance is what its log-probs allow: at most the cost of any one alignment, and at
    least that of the best path less `ln binom(T + U - r, 2U)`, the number of alignments (T frames, U labels, r adjacent
    repeats). Both bounds are exact for whatever scores the loss was given.

    ## Why is this bad?

    A loss outside them was not computed from these log-probs, labels and lengths: it may look healthy and train
    nothing, or something else. warp-ctc returns 0 for every error, and kernels that read labels from the wrong place
    give numbers of the usual size.

    ## In optax

    Not judged for `optax.ctc_loss`: the bounds are read off log-probs, and optax is given logits. A loss of one's own
    is judged with `observe(log_probs=…, losses=…)` beside it: a 0 for `[1, 2, 3]` on uniform log-probs (10 frames, 5
    classes), where at least 8.647 nats are right, is `zero-without-certainty`.

    ## Likely causes

    - `zero-without-certainty`: exactly 0, although the model is not certain: a failure that is shown as 0.
    - `above-one-alignment`: the loss is higher than the cost of one valid alignment.
    - `below-all-alignments`: the loss is lower than if every alignment were the best path.

    ## How to fix

    Compare one utterance with `torch.nn.functional.ctc_loss` on the CPU in float64. Check `blank`, dtypes and devices
    of labels and lengths, and, with `guard.observe`, that it is told what the loss was told, and the loss of each
    utterance before any division. It worked when both agree.

    ## Thresholds

    - `slack_nats` (nats per 1,000 frames, at least one portion, 0.01), and
    - `slack_fraction` (of the bound, per 1,000 frames, at least one portion, 0.0001): rounding of a float32 loss and of
      the bounds. Measured in torch: 6e-6 for 300 frames, 2e-5 for 1,000, 7e-5 for 3,000, 6e-4 for 30,000.
    - `half_fraction` (of the bound, 0.004): for a loss that was itself rounded to half precision.

    ## Known problems

    Silent for logits (optax), for utterances with bad labels or lengths, for scores in half precision (the loss may
    have been computed there), and where `T < 2U - 1` for the upper bound. A wrong loss between the bounds is not seen.

    ## Example

    Fires:

    >>> import numpy as np, ctcguard
    >>> log_probs = np.log(np.full((1, 20, 4), 0.25))
    >>> call = dict(log_probs=log_probs, targets=[[1, 2]], input_lengths=[20], target_lengths=[2], blank=0)
    >>> verdict, = ctcguard.diagnose(losses=np.asarray([0.0]), **call)
    >>> verdict.code, verdict.cause
    ('CTC504', 'zero-without-certainty')

    Use instead:

    >>> ctcguard.diagnose(losses=np.asarray([18.82]), **call)
    ()

    ## References

    - Graves et al., Connectionist Temporal Classification, ICML 2006, eq. 3
    - https://github.com/SeanNaren/warp-ctc/issues/102 (exactly 0 on the GPU, 2.46 on the CPU)
    - https://github.com/PaddlePaddle/PaddleOCR/issues/7769 (0 with accuracy 0)
    """

    code = "CTC504"
    severity = Severity.ERROR
    wants = ("losses", "alignment_cost", "frame_max_sum", "input_lengths", "target_lengths", "adjacent_repeats")
    causes = ("zero-without-certainty", "above-one-alignment", "below-all-alignments")
    explains = ()

    slack_nats: float = Field(1e-2, ge=0, description="absolute rounding, for each 1,000 frames")
    slack_fraction: float = Field(
        1e-4, ge=0, description="relative rounding, for each 1,000 frames (5 times the measured)"
    )
    half_fraction: float = Field(4e-3, ge=0, description="relative rounding of a loss that fits into half precision")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when a finite loss of a sound utterance lies outside its bounds; NaN belongs to CTC502."""
        losses, best = readings.column("losses"), readings.column("frame_max_sum")
        if str(readings.get("dtype")) in ("bfloat16", "float16"):
            return None
        judged = np.flatnonzero(sound(readings) & np.isfinite(losses) & np.isfinite(best))
        low, given = least_loss(readings, judged), losses[judged]
        if ((low <= given) & (given <= -best[judged])).all():  # no alignment costs less than the best path
            return None
        cost = readings.column("alignment_cost")[judged]
        high = np.where(np.isfinite(cost), cost, np.inf)
        if ((low <= given) & (given <= high)).all():
            return None
        beyond = np.maximum(
            low - losses[judged] - self._slack(readings, judged, best[judged]),
            losses[judged] - high - self._slack(readings, judged, np.where(np.isfinite(cost), cost, 0)),
        )
        healthy = beyond <= 0
        if healthy.all():
            return None
        order = np.flatnonzero(~healthy)[np.argsort(-beyond[~healthy], kind="stable")]
        bounds = {int(judged[k]): (float(low[k]), float(high[k])) for k in order}
        return self._outside(readings, bounds)

    def _slack(self, readings: Readings, utterances: HostArray, bound: HostArray) -> HostArray:
        """How far rounding can move a right loss beyond a bound."""
        portions = np.maximum(1, readings.column("input_lengths")[utterances] / 1000)
        losses = readings.column("losses")[utterances]
        # At most 11 significant bits: the loss was rounded to half precision after it had been computed.
        rounded = (losses != 0) & (np.frexp(losses)[0] * 2**11 % 1 == 0)
        fraction = np.maximum(self.slack_fraction * portions, np.where(rounded, self.half_fraction, 0))
        slack: HostArray = self.slack_nats * portions + fraction * np.abs(bound)
        return slack

    def _outside(self, readings: Readings, bounds: dict[int, tuple[float, float]]) -> Finding:
        losses, worst = readings.column("losses"), next(iter(bounds))
        low, high = bounds[worst]
        cause, must = "below-all-alignments", f"at least {low:.4g}"
        evidence = "that is its value if each alignment were the best path"
        if losses[worst] > low:
            cause, must, evidence = (
                "above-one-alignment",
                f"at most {high:.4g}",
                "that is the cost of one valid alignment",
            )
        elif losses[worst] == 0:
            cause, evidence = "zero-without-certainty", "0 means certainty, and these log-probs are not certain"
        fix = UNHIDE if cause == "zero-without-certainty" else COMPARE
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message=f"by its log-probs the loss of utterance {worst} must be {must} nats, but is {losses[worst]:.4g}",
            fix=fix.format(i=worst, blank=readings.get("blank", "…")),
            numbers={
                "loss_nats": float(losses[worst]),
                "least_nats": low,
                "most_nats": high,
                "utterances": len(bounds),
            },
            affected=bounds,
            note=lambda i: f"loss {losses[i]:.4g}, allowed {bounds[i][0]:.4g} to {bounds[i][1]:.4g} nats",
        )
