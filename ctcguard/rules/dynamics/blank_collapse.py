"""CTC701 blank-collapse."""

from __future__ import annotations

from pydantic import Field

from ctcguard.finding import Severity
from ctcguard.readings import Readings
from ctcguard.rules.dynamics._collapse import CollapseRule
from ctcguard.rules.dynamics._window import Window


class BlankCollapse(CollapseRule):
    """## What it does

    Checks that, after a grace period, the model says more than the blank: that it does not stand still where the blank
    wins all frames and the loss is that of an output which never changes.

    ## Why is this bad?

    Every transcript is empty, the word error rate exactly 1. The loss looks like that of a run that learns slowly: it
    fell at first, then stays near 3 nats a letter. That is the entropy of the labels: with the blank at `1 - U/T` and
    the labels as frequent as they are (T frames, U labels), no output that ignores its input loses less. All runs pass
    through here, for some hundred steps as a rule; some never leave. Public reports seldom found out why: this is a
    symptom, and the cause only what the numbers favour.

    ## In optax

    Looks the same. The best logits that are the same in every frame, for `[1, 2, 3]` in 10 frames with 5 classes, lose
    4.28 nats (uniform ones 8.65), and the blank wins every frame. `guard_step` measures it inside the compiled step.

    ## Likely causes

    - `far-out`: the loss is more than 1.5 times what a constant output can reach: the scores were driven far out, as a
      rule by a learning rate that is too high.
    - `unpaired`: the number of labels does not grow with that of frames: transcripts of other utterances.
    - `few-frames`: there are fewer than 2.5 frames a label.
    - `constant-output`: none of these. Most often the learning rate or its warm-up, then features (not normalised,
      or all alike), a cut gradient, or simply not enough steps yet.

    ## How to fix

    What helped somebody, in this order: a learning rate ten times lower and a longer warm-up; larger batches; a
    pretrained encoder; waiting. One batch alone must be learned within a few hundred steps: where it is not, look at
    the features and the gradient; where it is, at transcripts and learning rate. It worked when the blank wins less
    than all frames and the loss falls again.

    ## Thresholds

    - `grace_steps` (optimizer steps, 2000): twice the 200 to 1,000 steps after which, in public reports, fine-tuned
      models leave the plateau. From scratch, behind a warm-up of 10,000, they may need more: raise it for them.
    - `calls` (training calls, 1024): so many must agree.
    - `emitted_fraction` (frames that the blank does not win, for each frame that the labels need, 0.1): a right
      transcript needs 1, however sparse the labels are; 95 to 99% blanks are right where labels are rare.
    - `level` (of the loss of the best constant output, 0.6): that output is computed for equally frequent labels. The
      entropy of real ones is lower: 0.88 of that for letters and spaces, 0.79 with capitals and punctuation, 0.73 for
      whole words (measured).
    - `fall` (share of the loss, 0.01): by which it may have fallen over these calls, two standard errors included.
      Nine healthy runs of small models, with plateaus of up to 7,000 steps, never stood still like that (measured).

    ## Known problems

    Fires on a model whose healthy plateau is longer than the grace period: with a frozen encoder, a tiny learning rate,
    or a warm-up of tens of thousands of steps, raise `grace_steps`. Silent with labels so unequal that their entropy is
    below `level`, in noisy runs (one short utterance a batch), and where losses of several heads alternate and one of
    them is well.

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> stuck = dict(blank_fraction=1.0, labels=10.0, input_length_mean=100.0, constant_ratio=0.9, uniform_ratio=0.2)
    >>> history = {name: np.full(1024, value) for name, value in stuck.items()}
    >>> history |= {"step": np.arange(1000.0, 2024.0), "loss_nats": np.full(1024, 30.0)}
    >>> BlankCollapse().check(Readings({"history": history})).cause
    'constant-output'

    Use instead (90% blanks for one label in ten frames are right):

    >>> history |= {"blank_fraction": np.full(1024, 0.9), "constant_ratio": np.full(1024, 0.01)}
    >>> BlankCollapse().check(Readings({"history": history}))

    ## References

    - Zeyer et al., Why does CTC result in peaky behavior?, arXiv 2105.14849 (from a uniform start to all blanks)
    - https://github.com/meijieru/crnn.pytorch/issues/92 (a lower learning rate helped)
    - https://github.com/speechbrain/speechbrain/issues/2067 (the same configuration converges or not, by seed)
    - https://github.com/NVIDIA-NeMo/Speech/issues/8185 (batch size, warm-up)
    - https://github.com/baidu-research/warp-ctc/issues/34 (waiting helped)
    """

    code = "CTC701"
    severity = Severity.WARNING
    wants = ("history",)
    causes = ("far-out", "unpaired", "few-frames", "constant-output")
    explains = ("CTC703",)
    aftermath = explains

    emitted_fraction: float = Field(0.1, ge=0, description="frames not won by the blank, for each frame needed")

    def collapsed(self, window: Window, readings: Readings) -> bool:
        """Fewer frames are left to the labels than a tenth of what they need."""
        return window.emitted() < self.emitted_fraction

    def said(self, window: Window, readings: Readings) -> str:
        """How many frames the blank won."""
        blank, needed = window.median("blank_fraction"), 1 / window.frames_per_label()
        return (
            f"labels must win at least {needed:.1%} of the frames, but in {window.span()} the blank won {blank:.1%}, "
            "as good as all"
        )
