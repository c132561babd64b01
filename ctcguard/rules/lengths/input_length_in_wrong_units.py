"""CTC304 input-length-in-wrong-units."""

from __future__ import annotations

from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.lengths._paddings import misplaced_frames
from ctcguard.rules.lengths._units import (
    JITTER_FRACTION,
    Cause,
    Enough,
    multiple,
    relative,
    repeated_share,
    repeated_subsampling,
)


class InputLengthInWrongUnits(Rule):
    """## What it does

    Checks that input lengths are counted in frames of `log_probs`: the longest utterance of a padded batch fills the
    time axis, or has a length of its own, but is no fixed multiple or fraction of it.

    ## Why is this bad?

    Lengths that are too long make torch raise and others read padding as speech. Lengths that are too short are
    silent: the loss sees the first half (a quarter, a second) of each utterance, must fit the whole transcript into
    it, and infeasible utterances become inf, 1e5 or a hidden 0. Training goes on, badly.

    ## In optax

    Lengths come as `logit_paddings = jnp.arange(frames) >= lengths[:, None]`. For `[1, 2, 3]` on 40 frames of zeros (5
    classes), which cost 48.75 nats, relative lengths leave one frame and cost 100,000: `fraction`. A quarter of the
    frames costs 8.65: `subsampled-twice`, from the eighth call on if batches have three widths; at one static width it
    is not seen. Lengths before the subsampling mark nothing as padding, as if all utterances were full: this rule
    cannot tell.

    ## Likely causes

    - `not-subsampled`: the longest length is k ≥ 2 times the time axis: lengths of features or audio samples.
    - `fraction`: all lengths are at most 1: relative lengths (SpeechBrain), or those cut to whole numbers.
    - `subsampled-twice`: in call after call the longest is 1/2, 1/3, 1/4 or 1/8 of the time axis.
    - `seconds`: in call after call the longest is the same small share of the time axis.

    ## How to fix

    Count frames of `log_probs`: apply the model's own subsampling to the lengths, once. Hugging Face:
    `model._get_feat_extract_output_lengths(lengths)`. Relative lengths: `(relative * frames).round()`. It worked when
    the longest length of a dynamically padded batch is the number of frames.

    ## Thresholds

    - `min_frames` (frames, 10): below, a ratio says nothing.
    - `tolerance_frames` (frames, 1.5): what rounding in the convolutions may add or take away.
    - `history_calls` (calls, 8), `history_widths` (different time axes, 3): what must agree for the last two causes.
    - `seconds_fraction` (of the time axis, 0.1): the largest share called `seconds`.

    ## Known problems

    The last two causes are warnings and need the history of a training: `diagnose` does not see them, and with one
    static width, or lengths that do not grow with it (correlation below 0.9), they cannot be told from padding. Stays
    silent when lengths are wrong by another factor, or no number, or made of paddings that do not stand at the end
    (CTC302).

    ## Example

    Fires, for these are lengths before a subsampling by 4:

    >>> import numpy as np, ctcguard
    >>> call = dict(log_probs=np.log(np.full((1, 50, 4), 0.25)), targets=[[1, 2]], target_lengths=[2], blank=0)
    >>> verdict, = ctcguard.diagnose(**call, input_lengths=[203])
    >>> verdict.code, verdict.cause
    ('CTC304', 'not-subsampled')

    Use instead:

    >>> ctcguard.diagnose(**call, input_lengths=[50])
    ()

    ## References

    - https://github.com/thu-spmi/CAT/issues/22 (lengths not subsampled)
    - https://github.com/nl8590687/ASRT_SpeechRecognition/issues/173 (must be divided by 8)
    - https://github.com/speechbrain/speechbrain/issues/496 (relative lengths)
    """

    code = "CTC304"
    severity = Severity.ERROR
    wants = ("input_lengths", "frames")
    causes = ("not-subsampled", "fraction", "subsampled-twice", "seconds")
    explains = ("CTC301", "CTC302", "CTC502", "CTC503", "CTC504", "CTC601", "CTC603")

    min_frames: int = Field(default=10, ge=1, description="frames below which a ratio says nothing")
    tolerance_frames: float = Field(default=1.5, ge=0, description="frames that rounding may add or take away")
    history_calls: int = Field(default=8, ge=2, description="training calls that must agree")
    history_widths: int = Field(default=3, ge=2, description="different numbers of frames among them")
    seconds_fraction: float = Field(default=0.1, gt=0, lt=1, description="largest share of the frames called seconds")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the lengths are a fixed multiple or fraction of the time axis."""
        # Paddings made of lengths stand at the end, whatever the lengths count: others are no matter of units.
        if misplaced_frames(readings) is not None:
            return None
        cause = self._of_this_call(readings) or self._of_the_history(readings)
        if cause is None:
            return None
        lengths = readings.column("input_lengths")
        return self.finding(
            readings,
            cause=cause.slug,
            evidence=cause.evidence,
            message=cause.message,
            fix=cause.fix,
            numbers={"input_length_max": float(lengths.max()), "frames": readings["frames"]},
            severity=cause.severity,
        )

    def _of_this_call(self, readings: Readings) -> Cause | None:
        lengths, frames = readings.column("input_lengths"), readings["frames"]
        if not frames >= self.min_frames or not len(lengths):
            return None
        labels = readings.column("target_lengths") if "target_lengths" in readings else None
        return multiple(lengths, frames, self.tolerance_frames) or relative(lengths, labels, frames)

    def _of_the_history(self, readings: Readings) -> Cause | None:
        history = readings.get("length_history", ())
        if len(history) < self.history_calls:
            return None
        frames, longest = history[-1]
        if longest > max(
            frames / 2 + self.tolerance_frames, 1 + (1 + JITTER_FRACTION) * self.seconds_fraction * frames
        ):
            return None  # neither would be said of this call alone
        enough = Enough(self.min_frames, self.history_calls, self.history_widths)
        twice = repeated_subsampling(history, self.tolerance_frames, enough)
        return twice or repeated_share(history, self.seconds_fraction, enough)
