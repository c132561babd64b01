"""CTC301 too-few-frames."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class TooFewFrames(Rule):
    """## What it does

    Checks that every utterance has a frame for each label, and one more between two equal neighbours:
    `input_length ≥ target_length + adjacent repeats`. This is exact, never a ratio.

    ## Why is this bad?

    Such an utterance has no alignment at all: its probability is 0 and its loss infinite. torch gives `inf` and NaN
    gradients, after one step of which nearly every weight is NaN, gradient clipping or not; with `zero_infinity=True`
    it gives a silent 0 and the clip teaches nothing. optax gives about 1e5, TensorFlow about 709, both with finite
    gradients in a wrong direction.

    ## In optax

    optax takes -1e5 for ln 0: on 3 frames of zeros (5 classes) `[1, 2, 3]` costs 4.83 nats and `[1, 1, 2]` 100,001.5.
    That is finite, its gradient is of the usual size (up to 0.37; 0.80 for `[1, 2, 3]`), and 400 updates by
    `optax.adam(0.1)` bring it down to 99,998.9. `guard_step` says `repeats`, `too-short` or `most-of-the-batch` at that
    step, before the new state is handed back.

    ## Likely causes

    - `repeats`: there are enough frames for the labels, but not for the blanks between equal neighbours.
    - `too-short`: fewer frames than labels: a clip cut too short, a wrong transcript, or too much subsampling.
    - `most-of-the-batch`: at least half of the batch: the lengths or the subsampling are wrong, not single clips.

    ## How to fix

    Filter the utterances named, cut their transcripts to what is said, use larger units (BPE), or subsample less. To
    filter: keep an utterance only if `frames >= len(labels) + sum(a == b for a, b in zip(labels, labels[1:]))`. It
    worked when this finding and CTC503 are gone.

    ## Thresholds

    None for the rule itself: the condition is exact. `batch_fraction` (share of the batch, 0.5) selects the cause
    `most-of-the-batch`.

    ## Known problems

    With `zero_infinity=True` it is a warning, for nothing breaks; the data is lost all the same. Frames are counted as
    the loss was told (`input_lengths`): if those are wrong, CTC302 or CTC304 is the cause.

    ## Example

    Fires, for the two equal labels need a blank between them:

    >>> import numpy as np, ctcguard
    >>> two_frames = np.log(np.full((1, 2, 4), 0.25))
    >>> call = dict(targets=[[1, 1]], target_lengths=[2], blank=0)
    >>> verdict, = ctcguard.diagnose(log_probs=two_frames, input_lengths=[2], **call)
    >>> verdict.code, verdict.cause
    ('CTC301', 'repeats')

    Use instead:

    >>> three_frames = np.log(np.full((1, 3, 4), 0.25))
    >>> ctcguard.diagnose(log_probs=three_frames, input_lengths=[3], **call)
    ()

    ## References

    - Graves et al., Connectionist Temporal Classification, ICML 2006, section 3
    - https://github.com/k2-fsa/icefall/issues/1777 (repeats not counted)
    """

    code = "CTC301"
    wants = ("input_lengths", "target_lengths", "adjacent_repeats", "zero_infinity")
    causes = ("repeats", "too-short", "most-of-the-batch")
    explains = ("CTC502", "CTC503", "CTC504", "CTC601", "CTC603")

    batch_fraction: float = Field(default=0.5, gt=0, le=1, description="share of the batch called most of it")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when an utterance has fewer frames than labels and adjacent repeats."""
        frames, labels = readings.column("input_lengths"), readings.column("target_lengths")
        repeats = readings.column("adjacent_repeats")
        feasible = frames >= labels + repeats
        if feasible.all():
            return None
        short = np.flatnonzero(~feasible)

        def note(i: int) -> str:
            return f"{frames[i]:.0f} frames for {labels[i]:.0f} labels + {repeats[i]:.0f} adjacent repeats"

        cause, evidence, fix = self._cause(frames[short], labels[short], len(frames))
        hidden = bool(readings["zero_infinity"])
        effect = (
            "zero_infinity hides them as loss 0: they teach nothing"
            if hidden
            else "no alignment fits: the right loss is inf"
        )
        share = f"{len(short)} of {len(frames)} utterances"
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message=f"{share} have fewer frames than labels + adjacent repeats; {effect}",
            fix=fix,
            numbers={"utterances": len(short), "batch": len(frames)},
            affected=short[np.argsort((frames - labels - repeats)[short], kind="stable")],
            note=note,
            severity=Severity.WARNING if hidden else None,
        )

    def _cause(self, frames: np.ndarray, labels: np.ndarray, batch: int) -> tuple[str, str, str]:
        keep = "keep an utterance only if frames >= len(labels) + adjacent repeats"
        if len(frames) > 1 and len(frames) >= self.batch_fraction * batch:
            fix = "check input_lengths (frames after subsampling) and subsample less, or use larger units (BPE)"
            return "most-of-the-batch", f"{len(frames)} of {batch} utterances: not single clips", fix
        if (frames >= labels).all():
            return "repeats", "enough frames for the labels, but not for the blanks between equal neighbours", keep
        return "too-short", "fewer frames than labels: cut too short, wrong transcript, or too much subsampling", keep
