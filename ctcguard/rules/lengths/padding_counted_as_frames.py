"""CTC305 padding-counted-as-frames."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class PaddingCountedAsFrames(Rule):
    """## What it does

    Checks that input lengths tell the frames of each utterance from its padding: not all of them are the padded width
    although many utterances end in frames that are all the same.

    ## Why is this bad?

    The model learns to put blanks on padding, and the loss adds them up: wasteful, and in evaluation with other
    padding the end of a transcript may suffer. It is information only, for with images of one fixed width, and with
    models that were trained without a mask, this is how it is done.

    ## In optax

    `logit_paddings` of zeros do this; the loss is a little higher than with the right ones, and nothing else shows.

    ## Likely causes

    - `padded-width`: the lengths were made from the shape of the batch, `torch.full((batch,), time)`.

    ## How to fix

    Keep the lengths from before the padding, and subsample them as the model does. It worked when the finding is gone.

    ## Thresholds

    - `padding_fraction` (share of all frames, 0.1): less is not worth a line.
    - `min_batch` (utterances, 4)

    ## Known problems

    Sees padding only where the model turns it into frames that are exactly alike (frame by frame, or by convolutions):
    a recurrent net or self-attention hides it.

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> frames = np.asarray([40.0, 40.0, 40.0, 40.0])
    >>> readings = {"input_lengths": frames, "frames": 40, "tail_frames": np.asarray([1.0, 12.0, 20.0, 5.0])}
    >>> found = PaddingCountedAsFrames().check(Readings(readings))
    >>> found.cause, found.severity.value
    ('padded-width', 'information')

    Use instead:

    >>> PaddingCountedAsFrames().check(Readings(readings | {"input_lengths": np.asarray([40.0, 28.0, 20.0, 35.0])}))

    ## References

    - https://github.com/huggingface/transformers/issues/21534 (padding without a mask changes the output)
    """

    code = "CTC305"
    severity = Severity.INFORMATION
    wants = ("input_lengths", "frames", "tail_frames")
    causes = ("padded-width",)

    padding_fraction: float = Field(default=0.1, gt=0, lt=1, description="share of all frames that repeat at the end")
    min_batch: int = Field(default=4, ge=2, description="utterances that a batch must hold")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when all lengths are the padded width and tails of different lengths repeat one frame."""
        lengths, frames = readings.column("input_lengths"), readings["frames"]
        if len(lengths) < self.min_batch or readings.lowest("input_lengths") != frames:
            return None
        tails = readings.column("tail_frames")
        padding = np.maximum(tails - 1, 0)
        share = float(padding.sum()) / max(1, frames * len(lengths))
        differ = len(np.unique(tails)) >= min(3, len(tails))
        if not (lengths == frames).all() or not differ or share < self.padding_fraction:
            return None
        return self.finding(
            readings,
            cause="padded-width",
            evidence=f"{share:.0%} of all frames repeat the last one of their utterance exactly",
            message=f"input_lengths must count valid frames, but all of them are {frames}, the padded width",
            fix="pass the lengths from before the padding, subsampled as the model does",
            numbers={"padding_fraction": share, "frames": frames},
            affected=np.argsort(-tails, kind="stable"),
            note=lambda i: f"its last {tails[i]:.0f} frames are alike",
        )
