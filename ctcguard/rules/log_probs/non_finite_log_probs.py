"""CTC403 non-finite-log-probs."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard._array import HostArray
from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.log_probs._non_finite import held, of_alignments, of_frames
from ctcguard.rules.loss._alignments import least_loss, sound


class NonFiniteLogProbs(Rule):
    """## What it does

    Checks that no valid frame holds a NaN, a +inf or nothing but −inf, and that −inf does not stand in the way of every
    alignment of a target. −inf for classes that the target does not need is fine.

    ## Why is this bad?

    One NaN makes the loss of its utterance NaN, the mean NaN, and after one optimizer step nearly every weight,
    gradient clipping or not. −inf on every alignment makes a loss of +inf although there are enough frames;
    `zero_infinity=True` shows a 0 instead, and the gradient behind a log of 0 is NaN all the same.

    ## In optax

    A NaN or +inf in one frame makes the loss of its utterance NaN, the mean too, and after one update every weight of a
    linear head. −inf for a class that no label uses is NaN as well, for optax multiplies by a one-hot array; -1e30 is
    harmless there, but for a class that a label needs it gives about 100,000 nats (CTC503, `masked-class`).
    `guard_step` says the cause at that step, before the new state is handed back.

    ## Likely causes

    - `non-finite-features`: NaN in some utterances only: a division by a zero deviation, a log of 0, augmentation.
    - `whole-batch`: NaN in every frame of every utterance: weights, or a layer that mixes utterances (batch norm).
    - `overflow`: +inf: half precision, or a division by zero.
    - `log-of-softmax`: `log(softmax(x))` underflows to −inf once the model is confident; `log_softmax` never does.
    - `masking`: classes or frames were set to −inf, or to values that add up to −inf, but the target needs them.

    ## How to fix

    Look at the features of the utterance named before anything else; filter clips of silence or of one frame, and add
    an epsilon to the deviation. Write `log_softmax(x, -1)` for `log(softmax(x, -1))`. Mask only classes that no target
    contains, never the blank. It worked when the finding and CTC502 are gone.

    ## Thresholds

    - `zero_nats` (nats, 1): with `zero_infinity`, an exact 0 is a hidden infinity when no right loss is below this.

    ## Known problems

    NaN beyond `input_lengths` is not counted: torch ignores it in the loss (CTC601 sees its gradient). −inf that is
    needed is seen through the loss, so not without per-utterance losses, nor behind `zero_infinity` when the best path
    is nearly certain.

    ## Example

    Fires:

    >>> import numpy as np, ctcguard
    >>> log_probs = np.log(np.full((2, 20, 4), 0.25))
    >>> call = dict(targets=[[1, 2], [3, 1]], input_lengths=[20, 20], target_lengths=[2, 2], blank=0)
    >>> ctcguard.diagnose(log_probs=log_probs, **call)
    ()
    >>> log_probs[1, 5:8] = np.nan
    >>> root = ctcguard.diagnose(log_probs=log_probs, **call)[0].root
    >>> root.code, root.cause, root.utterances[0].note
    ('CTC403', 'non-finite-features', '3 of 20 frames hold NaN')

    ## References

    - https://github.com/NVIDIA-NeMo/Speech/issues/4549 and https://github.com/xinjli/allosaurus/issues/64 (features)
    - https://github.com/pytorch/pytorch/issues/14335 (NaN after some iterations)
    """

    code = "CTC403"
    severity = Severity.ERROR
    wants = ("expects", "non_finite_frames", "score_max")
    causes = ("non-finite-features", "whole-batch", "overflow", "log-of-softmax", "masking")
    explains = ("CTC401", "CTC402", "CTC502", "CTC503", "CTC504", "CTC601")
    poisons = ("CTC401", "CTC402", "CTC403", "CTC501", "CTC502", "CTC503", "CTC504")
    aftermath = ("CTC507", "CTC604")

    zero_nats: float = Field(1.0, ge=0, description="an exact 0 is a hidden infinity when no right loss is below this")

    def check(self, readings: Readings) -> Finding | None:
        """Fires on bad valid frames, and on a loss that only −inf on every alignment can bring about."""
        bad = readings.column("non_finite_frames")
        finite = bad == 0
        if not readings.highest("non_finite_frames") <= 0:
            return self._bad_frames(readings, np.flatnonzero(~finite)[np.argsort(-bad[~finite], kind="stable")])
        blocked = self._blocked(readings)
        if blocked.size == 0:
            return None
        cause = of_alignments(readings)
        return self.finding(
            readings,
            cause=cause.slug,
            evidence=cause.evidence,
            message=f"{blocked.size} of {finite.size} utterances have frames enough, but −inf where labels need more",
            fix=cause.fix,
            numbers={"utterances": blocked.size, "minus_inf_fraction": readings.get("minus_inf_fraction")},
            affected=blocked,
            note=lambda i: f"loss {readings['losses'][i]:.4g}",
        )

    def _bad_frames(self, readings: Readings, worst_first: HostArray) -> Finding:
        bad, frames = readings.column("non_finite_frames"), readings.get("input_lengths")

        def note(i: int) -> str:
            count = f"{bad[i]:.0f}" if frames is None else f"{bad[i]:.0f} of {frames[i]:.0f}"
            return f"{count} frames hold {held(readings, i)}"

        worst = int(worst_first[0])
        cause = of_frames(readings, bad, worst, note(worst))
        scores = "log-probs" if readings["expects"] == "log_probs" else "logits"
        return self.finding(
            readings,
            cause=cause.slug,
            evidence=cause.evidence,
            message=f"{scores} must be finite, but valid frames of {worst_first.size} of {bad.size} utterances hold "
            f"{held(readings, worst)}",
            fix=cause.fix,
            numbers={"utterances": worst_first.size, "frames": float(bad.sum())},
            affected=worst_first,
            note=note,
        )

    def _blocked(self, readings: Readings) -> HostArray:
        """Sound utterances whose loss is infinite, or NaN where the loss multiplies −inf by 0, or a hidden infinity."""
        if not all(name in readings for name in ("losses", "input_lengths", "target_lengths", "adjacent_repeats")):
            return np.asarray([], dtype=int)
        losses = readings.column("losses")
        if -np.inf < readings.lowest("losses") and readings.highest("losses") < np.inf and not (losses == 0).any():
            return np.asarray([], dtype=int)
        judged, infinite = sound(readings), np.isposinf(losses)
        some = readings.get("minus_inf_fraction", 0) > 0
        if some and readings["expects"] == "logits" and "non_finite_padding_frames" in readings:
            infinite |= np.isnan(losses) & (readings.column("non_finite_padding_frames") == 0)
        if some and readings.get("zero_infinity") and "frame_max_sum" in readings:
            zero = np.flatnonzero(judged & (losses == 0))
            infinite[zero] = least_loss(readings, zero) > self.zero_nats
        # One alignment of finite cost is enough: then the loss itself is at fault.
        passable = np.isfinite(readings.get("alignment_cost", np.full(losses.shape, np.inf)))
        return np.flatnonzero(judged & infinite & ~passable)
