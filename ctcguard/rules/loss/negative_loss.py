"""CTC501 negative-loss."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class NegativeLoss(Rule):
    """## What it does

    Checks that no utterance has a CTC loss below 0, apart from rounding: −ln of a probability cannot be.

    ## Why is this bad?

    A negative loss is always a symptom: what was called a probability is more than 1, so the loss can be lowered
    without end and the model learns to do that instead of the transcripts. It may take thousands of steps to show: with
    a label beyond the head, optax was seen to turn negative after 1,500 steps.

    ## In optax

    On logits of zeros (10 frames, 5 classes) `[5, 6, 7]` costs -4.25 nats at once; `[1, 2, 5]` costs 1.88 and `[1, 0,
    3]` 8.65, and they are below 0 after 6 and 12 updates by `optax.adam(0.1)`. A right loss near 0 can come out as
    -2e-8, which stays silent. `guard_step` looks at each utterance, not at the mean, and says CTC201 or CTC203 from the
    first step on; this is their symptom.

    ## Likely causes

    - `negative`: the rules that explain it tell which: scores that are not normalised (CTC402, CTC401), a label beyond
      the head (CTC201, CTC101), a label below 0 (CTC202), or the blank among the labels (CTC203).

    ## How to fix

    Fix the cause named above it. When none is named, compare one utterance with `torch.nn.functional.ctc_loss` on the
    CPU in float64. It worked when no utterance is below 0 from the first batch on.

    ## Thresholds

    - `band_nats` (nats per 1,000 frames, at least one portion, 0.001): rounding of a right loss reaches −8e-8 in
      float32, −4.7e-5 in float16 and −4.8e-4 in bfloat16 (3,000 frames). Real mistakes: −0.6 to −246.
    - `hint_nats` (nats per frame, 0.01): `log(softmax(x) + eps)` sums to a little more than 1. Up to this much, as
      measured, each frame may lower the loss by it; by all of it at a call that the budget left no time to measure.
    - `bfloat16_nats` (nats per frame, 0.0022): where the softmax ran in bfloat16, each frame may lower the loss by this
      much, whatever was measured (on a sample). A loss near 0 leaves a frame three classes at most (a label, the blank,
      the next label), and these are rounded by 2^-9 ln 3 together.

    ## Known problems

    Judges the CTC call, never a logged total: MWER and entropy terms may make that negative by design. NaN and −inf are
    no numbers below 0: CTC502 reports them. Stays silent while a wrong loss is still positive.

    ## Example

    Fires, as a symptom of the probabilities:

    >>> import numpy as np, ctcguard
    >>> call = dict(targets=[[1, 2]], input_lengths=[20], target_lengths=[2], blank=0)
    >>> probabilities = np.full((1, 20, 4), 0.25)
    >>> verdict, = ctcguard.diagnose(log_probs=probabilities, losses=np.asarray([-13.90]), **call)
    >>> verdict.code, [finding.code for finding in verdict.also]
    ('CTC402', ['CTC401', 'CTC501'])

    Use instead:

    >>> ctcguard.diagnose(log_probs=np.log(probabilities), losses=np.asarray([18.82]), **call)
    ()

    ## References

    - https://github.com/sanchit-gandhi/seq2seq-speech/issues/28 (labels beyond the head)
    - https://discuss.pytorch.org/t/ctc-loss-is-negative/200771 (softmax output)
    - https://github.com/yl4579/AuxiliaryASR/issues/4 (blank among the labels)
    """

    code = "CTC501"
    severity = Severity.ERROR
    wants = ("losses", "frames")
    causes = ("negative",)
    explains = ()

    band_nats: float = Field(1e-3, ge=0, description="rounding of a right loss, for each 1,000 frames (measured)")
    hint_nats: float = Field(1e-2, ge=0, description="excess of a frame's sum that log(softmax(x) + eps) may have")
    bfloat16_nats: float = Field(2.2e-3, ge=0, description="rounding of three classes of a frame in bfloat16")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when a loss is a number below the rounding band; NaN and −inf belong to CTC502."""
        if readings.lowest("losses") >= 0:
            return None
        losses = readings.column("losses")
        frames = np.asarray(readings.get("input_lengths", np.full(losses.shape, readings["frames"])))
        allowed = self.band_nats * np.maximum(1, frames / 1000) + frames * self._excess(readings)
        below = np.isfinite(losses) & (losses < -allowed)
        if not below.any():
            return None
        lowest = np.flatnonzero(below)[np.argsort(losses[below], kind="stable")]
        worst = lowest[0]
        return self.finding(
            readings,
            cause="negative",
            evidence=f"{lowest.size} of {losses.size} utterances are below 0",
            message=f"a CTC loss must not be below 0 but is {losses[worst]:.4g} nats (limit -{allowed[worst]:.2g})",
            fix="see that the scores are log_softmax over the classes and that every label is a class, not the blank",
            numbers={"loss_min_nats": float(losses[worst]), "allowed_nats": -float(allowed[worst])},
            affected=lowest,
            note=lambda i: f"loss {losses[i]:.4g} nats",
        )

    def _excess(self, readings: Readings) -> float:
        """By how much the classes of each frame may sum to more than 1, in nats, and be right all the same."""
        # At a call that is measured in part only (over budget) the sums are not known: any hint may be there.
        unknown = self.hint_nats if "score_max" in readings else 0.0
        highest = float(readings.get("logsumexp_max", unknown))
        measured = highest if 0 < highest <= self.hint_nats else 0.0
        bfloat16 = readings.get("softmax_dtype") == "bfloat16" or readings.get("fits_bfloat16") == 1
        return max(measured, self.bfloat16_nats if bfloat16 else 0.0)
