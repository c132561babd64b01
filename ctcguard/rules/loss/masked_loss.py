"""CTC503 masked-loss."""

from __future__ import annotations

import numpy as np

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.loss._alignments import feasible

CONSTANT_NATS = 9e4
"""Just below what optax takes for -ln 0, 1e5."""


class MaskedLoss(Rule):
    """## What it does

    Checks that no utterance without any alignment (fewer frames than labels + adjacent repeats) has a finite loss: the
    right value is infinite, so a finite one hides a failure.

    ## Why is this bad?

    With `zero_infinity=True` (and always in warp-ctc) such clips count as loss 0 and teach nothing, and the mean looks
    better the more of them there are. optax gives about 100,000, TensorFlow about 709: finite, so that checks for NaN
    pass, with a gradient of full size in a wrong direction.

    ## In optax

    It is `large-constant` always: `[1, 2, 3]` on the first 2 of 10 frames of zeros (5 classes) costs 100,000.7 nats,
    and 99,998.9 after 400 updates by `optax.adam(0.1)`. `guard_step` sees what optax returned, so the finding stays
    when you replace it afterwards (`jnp.where(losses > 1e4, 0, losses)`); the verdict is CTC301.

    ## Likely causes

    - `masked-class`: there are frames enough, but a class that a label needs is masked out by a large negative logit.
    - `zero-infinity`: the loss is exactly 0.
    - `large-constant`: any other finite number: ln 0 was replaced by a constant.

    ## How to fix

    Filter these utterances before training: keep one only if
    `frames >= len(labels) + sum(a == b for a, b in zip(labels, labels[1:]))`. CTC301, which explains this finding, has
    more. It worked when both are gone.

    ## Thresholds

    None: without an alignment the condition is exact. `masked-class` needs a loss of 90,000 nats or more (optax takes
    1e5 for -ln 0) and a logit as low.

    ## Known problems

    Topologies that need no blank between equal neighbours (k2's "modified") have alignments where this rule sees none.

    ## Example

    Fires, as a symptom of CTC301:

    >>> import numpy as np, ctcguard
    >>> log_probs = np.log(np.full((2, 9, 4), 0.25))
    >>> call = dict(log_probs=log_probs, targets=[[1, 1], [1, 2]], target_lengths=[2, 2], blank=0, zero_infinity=True)
    >>> verdict, = ctcguard.diagnose(input_lengths=[9, 1], losses=np.asarray([7.64, 0.0]), **call)
    >>> verdict.code, verdict.also[0].cause
    ('CTC301', 'zero-infinity')

    Use instead:

    >>> ctcguard.diagnose(input_lengths=[9, 9], losses=np.asarray([7.64, 6.72]), **call)
    ()

    ## References

    - https://github.com/wenet-e2e/wenet/pull/2299 (zero_infinity "to save time in data cleaning")
    - https://github.com/PaddlePaddle/PaddleOCR/issues/17876 (loss 0 for a whole training)
    - https://github.com/apple/axlearn/pull/211 (1e5 in optax)
    - https://github.com/tensorflow/tensorflow/issues/55328 (dense labels hide it)
    """

    code = "CTC503"
    severity = Severity.WARNING
    wants = ("losses", "input_lengths", "target_lengths", "adjacent_repeats", "zero_infinity")
    causes = ("zero-infinity", "large-constant", "masked-class")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """Fires when an utterance that has no alignment has a finite loss."""
        losses = readings.column("losses")
        healthy = feasible(readings) | ~np.isfinite(losses)
        if healthy.all():
            return self._masked_class(readings, losses)
        hidden = np.flatnonzero(~healthy)
        values, share = losses[hidden], hidden.size / losses.size
        zero = bool((values == 0).all())
        if zero:
            by = "zero_infinity=True" if readings["zero_infinity"] else "the loss itself, as warp-ctc does"
            evidence = f"shown as exactly 0 by {by}"
        else:
            evidence = f"shown as {np.median(values):.6g}: ln 0 was replaced by a constant"
        return self.finding(
            readings,
            cause="zero-infinity" if zero else "large-constant",
            evidence=evidence,
            message=f"{hidden.size} of {losses.size} utterances ({share:.0%}) have no alignment: their loss must be "
            f"infinite, but it is {', '.join(f'{value:.6g}' for value in np.unique(values)[:3])}",
            fix="keep an utterance only if frames >= len(labels) + adjacent repeats",
            numbers={"utterances": hidden.size, "batch": losses.size, "batch_fraction": share},
            affected=hidden,
            note=lambda i: f"loss {losses[i]:.6g} nats",
        )

    def _masked_class(self, readings: Readings, losses: np.ndarray) -> Finding | None:
        """Frames enough, and yet optax's constant for ln 0: a class that is masked out, and that a label needs."""
        if readings.highest("losses") < CONSTANT_NATS:
            return None
        lowest = readings.get("sample_min", 0.0)
        hidden = np.flatnonzero(np.isfinite(losses) & (losses >= CONSTANT_NATS))
        if not lowest <= -CONSTANT_NATS or readings.get("expects") != "logits" or not hidden.size:
            return None
        return self.finding(
            readings,
            cause="masked-class",
            evidence=f"logits go down to {lowest:.3g}, and with frames enough the losses reach {losses.max():.6g} nats",
            message=f"{hidden.size} of {losses.size} utterances have labels whose classes are masked out in every "
            "frame: their loss must be infinite, but it is a large constant",
            fix="do not mask classes that a label needs: look at the mask beside the labels of the utterances named",
            numbers={"utterances": hidden.size, "batch": losses.size, "sample_min": lowest},
            affected=hidden[np.argsort(-losses[hidden], kind="stable")],
            note=lambda i: f"loss {losses[i]:.6g} nats",
        )
