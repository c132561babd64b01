"""CTC505 loss-disagrees-with-reference."""

from __future__ import annotations

from math import isfinite

from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.loss._reference import Explanation, Whole, explanations


class LossDisagreesWithReference(Rule):
    """## What it does

    Checks that the loss of one utterance is the one that the CTC forward algorithm gives for its log-probs, labels and
    lengths, computed again in float64. It looks at one utterance at the first call and at every 1,024th after it.

    ## Why is this bad?

    A loss that is computed in another way than its labels and lengths say may look healthy, and its gradient leads
    somewhere else. Losses written by hand and bindings do that most often: a blank that is not the one that was asked
    for, a graph without its loops, lengths that are ignored, a mean where a sum is meant.

    ## In optax

    Not measured for `optax.ctc_loss`: a compiled step would have to hand out a whole utterance. Its float32 losses were
    compared here with the reference: they differ by at most 3.2e-5 of the loss (16 to 3,000 frames); with float16
    logits by 0.1%, with bfloat16 logits by up to 0.9%.

    ## Likely causes

    - `blank-index`: the loss is right for another blank, class 0 or the last one.
    - `repeats-ignored`: right for an algorithm that asks for no blank between equal labels.
    - `wrong-length`: right for all padded frames, or for all labels of the buffer.
    - `scaled`: right but for a factor: divided by labels, frames or the batch, in bits, or negated.
    - `too-high`: none of these: alignments are missing.
    - `too-low`: none of these: there are too many alignments.

    ## How to fix

    As the finding says. For `too-high` and `too-low`, compare one utterance with `torch.nn.functional.ctc_loss` on the
    CPU in float64, with one label first, then with two different ones, then with two equal ones. It worked when both
    agree.

    ## Thresholds

    - `slack_nats` (nats per 1,000 frames, at least one portion, 0.01), and
    - `slack_fraction` (of the loss, per 1,000 frames, at least one portion, 0.0001), added: rounding of a float32 loss;
      so closely must a known mistake be met. Measured in torch and optax: 4e-6 of the loss for 16 frames, 4e-5 for 500,
      8e-5 for 3,000; in float64 1e-10 nats.
    - `half_nats` (nats a frame, 0.004), and
    - `half_fraction` (of the loss, 0.005), added: `too-high` and `too-low` are said beyond this only, for a loss may
      cast to half precision inside. optax with bfloat16 logits needs a third of it.

    ## Known problems

    Silent for an exact 0 (CTC503 and CTC504 report it), for losses that are not finite (CTC502), for utterances that
    have no alignment (CTC301), and where labels or lengths are out of range. A loss that is meant to differ, told to
    `guard.observe` (a focal weight, another topology), is reported; `scaled`, `too-high` and `too-low` are warnings
    there. One utterance is looked at: what is wrong for others only is not seen.

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> columns = np.log(np.full((20, 3), 0.25))
    >>> uniform = dict(
    ...     exact_log_probs=columns, exact_end_log_probs=columns[:, :2], exact_labels=np.asarray([[1.0, 2.0]]),
    ...     exact_frames=20.0, exact_label_count=2.0, exact_index=0.0, blank=0, classes=4, batch=8,
    ...     concatenated=False, source="guard.observe",
    ... )
    >>> found = LossDisagreesWithReference().check(Readings({**uniform, "exact_loss": 9.4131}))
    >>> found.cause, found.evidence
    ('scaled', '9.413 nats is what it would be if it were divided by its 2 labels')

    Use instead:

    >>> LossDisagreesWithReference().check(Readings({**uniform, "exact_loss": 18.8263}))

    ## References

    - Graves et al., Connectionist Temporal Classification, ICML 2006, eq. 6 to 8
    - https://github.com/liuhu-bigeye/enctc.crnn/issues/9 (the blank that was asked for is not used)
    - https://github.com/k2-fsa/snowfall/pull/57 (a graph without its loops)
    - https://github.com/SeanNaren/warp-ctc/issues/189 (inf where torch gives 771)
    """

    code = "CTC505"
    severity = Severity.ERROR
    wants = (
        "exact_log_probs",
        "exact_end_log_probs",
        "exact_labels",
        "exact_frames",
        "exact_label_count",
        "exact_index",
        "exact_loss",
        "blank",
        "classes",
        "batch",
        "concatenated",
    )
    causes = ("blank-index", "repeats-ignored", "wrong-length", "scaled", "too-high", "too-low")
    explains = ("CTC501", "CTC504")
    everywhere = True

    slack_nats: float = Field(1e-2, ge=0, description="absolute rounding of a float32 loss, for each 1,000 frames")
    slack_fraction: float = Field(1e-4, ge=0, description="relative rounding of a float32 loss, for each 1,000 frames")
    half_nats: float = Field(4e-3, ge=0, description="absolute rounding of a loss in half precision, for each frame")
    half_fraction: float = Field(5e-3, ge=0, description="relative rounding of a loss in half precision")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when a finite loss is not that of the reference; NaN belongs to CTC403 and CTC502."""
        whole, given = Whole.read(readings), float(readings["exact_loss"])
        if whole is None or given == 0 or not isfinite(given):
            return None
        right = whole.loss()
        portions = max(1.0, whole.frames / 1000)
        slack = (self.slack_nats + self.slack_fraction * abs(right)) * portions
        if not isfinite(right) or abs(given - right) <= slack:
            return None
        index = int(readings["exact_index"])
        cause = _known(readings, whole, given, right, slack)
        if cause is None:
            slack = max(slack, self.half_nats * whole.frames + self.half_fraction * abs(right))
            if abs(given - right) <= slack:
                return None
            cause = _unknown(readings, given, right)
        kernel = readings.get("source", "") not in ("guard.observe", "ctcguard.observe", "")
        certain = kernel or cause.slug in ("blank-index", "repeats-ignored", "wrong-length")
        return self.finding(
            readings,
            cause=cause.slug,
            evidence=cause.words,
            message=f"by the forward algorithm the loss of utterance {index} must be {right:.4g} nats (±{slack:.2g}), "
            f"but is {given:.4g}",
            fix=cause.fix,
            numbers={"loss_nats": given, "reference_nats": right, "slack_nats": slack},
            affected=[index],
            note=lambda i: f"loss {given:.4g} nats, {right:.4g} by the reference",
            severity=Severity.ERROR if certain else Severity.WARNING,
        )


def _known(readings: Readings, whole: Whole, given: float, right: float, slack: float) -> Explanation | None:
    for known in explanations(readings, whole, right):
        # A factor makes the rounding smaller, too: a small loss is not to be taken for any small number.
        scale = min(1.0, abs(known.nats / right)) if right else 1.0
        if isfinite(known.nats) and abs(given - known.nats) <= scale * slack:
            return known._replace(words=f"{given:.4g} nats is what it would be if {known.words}")
    return None


def _unknown(readings: Readings, given: float, right: float) -> Explanation:
    slug, why = ("too-high", "alignments are missing") if given > right else ("too-low", "alignments are too many")
    fix = (
        f"compute utterance {int(readings['exact_index'])} again: "
        f"F.ctc_loss(log_probs.double().cpu(), …, blank={readings['blank']}, reduction='none'); {why}"
    )
    return Explanation(slug, right, "no mistake that is known gives this number", fix)
