"""CTC401 positive-log-prob."""

from __future__ import annotations

import numpy as np

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules.log_probs._tolerance import ToleranceRule


class PositiveLogProb(ToleranceRule):
    """## What it does

    Checks that no log-probability of a valid frame is above 0: every value of every frame, not a sample. For a loss
    that is given logits and returns its forward log-probabilities (optax): that none of those is.

    ## Why is this bad?

    A probability above 1 is rewarded without end. `torch.nn.CTCLoss` does not look: the loss can fall for ever, below
    0, while nothing is learned. This is the weaker twin of CTC402: a softmax over the wrong axis passes it. But it
    reads all frames where CTC402 reads a sample.

    ## In optax

    optax is given logits, which may be positive. `guard_step` looks at the forward log-probs that `optax.ctc_loss`
    throws away: on logits of zeros (10 frames, 5 classes) `[5, 1, 2, 3]` costs 3.05 nats and looks healthy, but one of
    them is 0.446: `free-symbol`. Log-probs that are given to `observe(log_probs=…)` are judged as in torch.

    ## Likely causes

    - `positive`: the values are no log-probs. CTC402 says which mistake it is, where it can be told.
    - `not-a-number`: the largest value is NaN; CTC403 says why.
    - `free-symbol`: a forward log-probability is above 0: a label that is no class costs nothing in optax, and the
      blank among the labels is counted twice. CTC201, CTC202 or CTC203 says which.

    ## How to fix

    Pass `log_softmax(x, -1)`, over the class axis, directly into the loss. `free-symbol`: make every label a class of
    the head, not the blank. It worked when the finding is gone.

    ## Thresholds

    - `float32_nats` (nats, 0.001), `float16_nats` (nats, 0.01), `bfloat16_nats` (nats, 0.05): by the dtype in which the
      softmax ran. log_softmax itself never exceeds 0 in any dtype; the room is for what was measured after casts.
      Forward log-probs add up rounding: the limit grows with the frames, beyond 1,000 in float32, else by each frame.
    - `hint_nats` (nats, 0.01): up to here it is information only, for `log(softmax(x) + eps)` reaches `ln(1 + eps)`.

    ## Known problems

    Fires on purpose-made scores that are no distribution (for example when a constant is added to favour blanks).
    Stays silent on probabilities of a very wide head, all of them below the limit; CTC402 sees those.

    ## Example

    Fires, here as a symptom of CTC402:

    >>> import numpy as np, ctcguard
    >>> logits = np.asarray([[[2.0, 0.5, -1.0], [0.1, 3.0, 0.2]]])
    >>> call = dict(targets=[[1]], input_lengths=[2], target_lengths=[1], blank=0)
    >>> [finding.code for finding in ctcguard.diagnose(log_probs=logits, **call)[0].also]
    ['CTC401']

    Use instead:

    >>> log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    >>> ctcguard.diagnose(log_probs=log_probs, **call)
    ()

    ## References

    - https://github.com/SeanNaren/deepspeech.pytorch/issues/488 (raw logits)
    - https://discuss.pytorch.org/t/ctc-loss-is-negative/200771 (softmax output)
    """

    code = "CTC401"
    severity = Severity.ERROR
    wants = ("expects", "softmax_dtype", "score_max", "fits_bfloat16", "fits_float16")
    causes = ("positive", "not-a-number", "free-symbol")
    explains = ("CTC501",)

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the largest value of a valid frame is above the limit."""
        if readings["expects"] != "log_probs":
            return self._forward(readings) if "forward_max" in readings else None
        if readings.highest("score_max") <= self.lowest_limit():
            return None
        largest, limit = readings.column("score_max"), self.limit(readings)
        healthy = largest <= limit.nats
        if healthy.all():
            return None
        bad = np.flatnonzero(~healthy)
        worst_first = bad[np.argsort(np.nan_to_num(-largest[bad], nan=-np.inf), kind="stable")]
        worst = largest[worst_first[0]]
        unknown = bool(np.isnan(largest).any())
        evidence = "the largest value is NaN" if unknown else f"as probabilities, values reach e^{worst:.3g}"
        return self.finding(
            readings,
            cause="not-a-number" if unknown else "positive",
            evidence=evidence,
            message=f"a log-prob must not be above 0 but reaches {worst:.3g} (limit {limit.nats:g} for {limit.dtype})",
            fix="find where the NaN comes from: see CTC403" if unknown else "pass log_softmax(x, -1) instead of x",
            numbers={"score_max": float(worst), "limit_nats": limit.nats},
            affected=worst_first,
            note=lambda i: f"reaches {largest[i]:.3g}",
            severity=Severity.INFORMATION if worst <= self.hint_limit(readings) and not unknown else None,
        )

    def _forward(self, readings: Readings) -> Finding | None:
        """NaN and inf belong to CTC502: they are in the loss too."""
        largest, dtype = readings.column("forward_max"), str(readings["softmax_dtype"])
        frames = readings.get("input_lengths", np.full(largest.shape, readings.get("frames", 1)))
        half = {"float16": self.float16_nats, "bfloat16": self.bfloat16_nats}.get(dtype)
        limit = half * np.maximum(1, frames) if half else self.float32_nats * np.maximum(1, frames / 1000)
        above = np.isfinite(largest) & ~(largest <= limit)
        if not above.any():
            return None
        worst_first = np.flatnonzero(above)[np.argsort(-largest[above], kind="stable")]
        worst = worst_first[0]
        return self.finding(
            readings,
            cause="free-symbol",
            evidence=f"the labels up to some frame have probability e^{largest[worst]:.3g}: one of them costs nothing",
            message=f"a forward log-prob must not be above 0 but reaches {largest[worst]:.3g} "
            f"(limit {limit[worst]:.2g} for {dtype})",
            fix="see that every label is a class of the head, and not the blank",
            numbers={"forward_max": float(largest[worst]), "limit_nats": float(limit[worst])},
            affected=worst_first,
            note=lambda i: f"reaches {largest[i]:.3g}",
        )
