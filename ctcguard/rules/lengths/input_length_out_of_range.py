"""CTC302 input-length-out-of-range."""

from __future__ import annotations

import numpy as np

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.lengths._paddings import ALL_PADDING, INVERT, Misplaced, misplaced_frames

ROUNDING_FRAMES = 2


class InputLengthOutOfRange(Rule):
    """## What it does

    Checks that every input length is between 1 and the number of frames that the loss was given, and, for a loss that
    takes paddings instead of lengths (optax), that these mark the end of each utterance.

    ## Why is this bad?

    torch refuses lengths beyond the time axis with a RuntimeError that does not name the utterance. TensorFlow and
    others cut them silently. A length of 0 leaves no alignment for any label: the loss is infinite in torch, 0 with
    `zero_infinity=True`, about 1e5 in optax. Inverted paddings pass silently: optax learns from the padding.

    ## In optax

    There are no lengths: `logit_paddings` of another width than the frames are a ValueError, but 1 and 0 may be
    exchanged. Two utterances with `[1, 2, 3]`, 14 and 12 of 20 frames of zeros (5 classes), cost 13.1 and 10.8 nats;
    with the mask in place of the paddings 5.2 and 6.7, and 0.005 and 0.007 after 400 updates by `optax.adam(0.1)`: a
    healthy curve, learned from padding. `guard_step` says `inverted-paddings`, `all-padding` or `not-right-padded` at
    the first step.

    ## Likely causes

    - `beyond-time`: a length is larger than the time axis: lengths of the features or samples instead of the encoder's
      output (CTC304 says how many times), another rounding than the convolutions', or a padded length.
    - `below-one`: a length is 0, negative or no number: the clip is shorter than the receptive field of the model.
    - `inverted-paddings`: utterances begin with padding, none is without, and what is left is odd: the scores change
      less from frame to frame than those of the padding, labels do not fit, or it is at most half of the time axis.
    - `all-padding`: every length is 0, because every frame of the batch is marked as padding.
    - `not-right-padded`: frames follow after padding, but nothing speaks for inverted paddings. Information where that
      is padding on the left.

    ## How to fix

    Count frames of `log_probs`, after subsampling, with the formula of the model: for each convolution
    `(n + 2 * padding - kernel) // stride + 1`; Hugging Face has `model._get_feat_extract_output_lengths`. Drop clips
    that no frame is left of. optax: `logit_paddings` is 1.0 where a frame is padding, `1.0 - mask`. It worked when the
    longest length of a batch is the number of frames.

    ## Thresholds

    None: for lengths the condition is exact, and the limits that tell padding on the left are fixed.

    ## Known problems

    An utterance of 0 frames and 0 labels (an item that only fills the batch) is information. So is padding on the left
    where the longest utterance has none, or where the scores change less than half as much from frame to frame in the
    padding as behind it (in the median), as they do behind most models. Where they change alike (behind embeddings of
    positions that drown the features, or when a model says blank everywhere), paddings are called inverted only if
    labels do not fit, or if at the first call no utterance fills more than half of the time axis; otherwise inverted
    paddings are information only. Stays silent for lengths that are too short but positive: CTC301 and CTC304 look at
    those.

    ## Example

    Fires, for there are 9 frames only:

    >>> import numpy as np, ctcguard
    >>> call = dict(log_probs=np.log(np.full((1, 9, 4), 0.25)), targets=[[1, 2]], target_lengths=[2], blank=0)
    >>> verdict, = ctcguard.diagnose(**call, input_lengths=[10])
    >>> verdict.code, verdict.cause
    ('CTC302', 'beyond-time')

    Use instead:

    >>> ctcguard.diagnose(**call, input_lengths=[9])
    ()

    ## References

    - https://github.com/thu-spmi/CAT/issues/22 (lengths not subsampled)
    - https://github.com/nl8590687/ASRT_SpeechRecognition/issues/173 (lengths must be divided by 8)
    - https://github.com/pytorch/pytorch/issues/51732 (lengths were not checked at the time)
    """

    code = "CTC302"
    severity = Severity.ERROR
    wants = ("input_lengths", "frames")
    causes = ("beyond-time", "below-one", "inverted-paddings", "all-padding", "not-right-padded")
    explains = ("CTC301", "CTC502", "CTC503", "CTC504", "CTC601")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when an input length is not in 1 … frames."""
        lengths, frames = readings.column("input_lengths"), readings["frames"]
        healthy = (lengths >= 1) & (lengths <= frames)
        misplaced = misplaced_frames(readings)
        if misplaced is not None and (healthy.all() or misplaced.slug == "inverted-paddings"):
            return self._misplaced(readings, misplaced)
        if healthy.all():
            return None
        filling = np.zeros_like(healthy)
        if "target_lengths" in readings:
            filling = (lengths == 0) & (readings.column("target_lengths") == 0)
        only_filling = bool((healthy | filling).all())
        wrong = np.flatnonzero(filling if only_filling else ~(healthy | filling))
        excess = np.where(lengths > frames, lengths - frames, 1 - lengths)[wrong]
        cause, evidence, fix = self._cause(float(lengths[wrong].max()), frames)
        if "starts_padded_frames" in readings and (lengths == 0).all():
            cause, evidence, fix = "all-padding", ALL_PADDING.format(item="frame"), INVERT.format(item="a frame")
        if only_filling:
            evidence, fix = "no frames and no labels: such an item only fills the batch", "nothing, if that is meant"
        share = f"{len(wrong)} of {len(lengths)} input lengths"
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message=f"{share} are not in 1 … {frames:.0f}, the frames of log_probs",
            fix=fix,
            numbers={"frames": frames, "input_length_max": float(lengths.max()), "utterances": len(wrong)},
            affected=wrong[np.argsort(-excess, kind="stable")],
            note=lambda i: f"input length {lengths[i]:g} of {frames:.0f} frames",
            severity=Severity.INFORMATION if only_filling else None,
        )

    def _misplaced(self, readings: Readings, found: Misplaced) -> Finding:
        counts, frames = readings.column("padded_first_frames"), readings["frames"]
        lengths, misplaced = readings.column("input_lengths"), int(np.sum(~(counts == 0)))
        return self.finding(
            readings,
            cause=found.slug,
            evidence=found.evidence,
            message=f"padding must stand at the end of the {frames:.0f} frames, but frames follow after it "
            f"in {misplaced} of {counts.size} utterances",
            fix=found.fix,
            numbers={"frames": frames, "padded_first_frames": float(counts.sum()), "utterances": misplaced},
            affected=found.rows,
            note=lambda i: "padding only" if lengths[i] == 0 else f"{counts[i]:.0f} padded frames before others",
            severity=found.severity,
        )

    def _cause(self, longest: float, frames: float) -> tuple[str, str, str]:
        formula = "(n + 2 * padding - kernel) // stride + 1 for each convolution"
        if longest > frames + ROUNDING_FRAMES:
            evidence = f"the longest is {longest / max(frames, 1):.3g} times the time axis"
            return "beyond-time", evidence, f"pass the frames of log_probs, after subsampling: {formula}"
        if longest > frames:
            return (
                "beyond-time",
                f"{longest - frames:g} too many: another rounding",
                f"round as the model does: {formula}",
            )
        fix = "drop clips shorter than the receptive field of the model, or pad them before the encoder"
        return "below-one", "no frame is left after subsampling", fix
