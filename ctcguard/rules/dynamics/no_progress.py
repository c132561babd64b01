"""CTC703 no-progress."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.dynamics._window import FAR, MARGIN, Window

SAME = 1.1
"""Up to so many times the loss of the best constant output, a uniform one is as good."""
ONE_SYMBOL = 0.95
"""Share of the frames from which on one symbol wins as good as all: then a loss far out belongs to CTC701 or CTC702."""


class Cause(NamedTuple):
    """A cause slug, the evidence for it, and what to do."""

    slug: str
    evidence: str
    fix: str


class NoProgress(Rule):
    """## What it does

    Checks that, after a grace period, the loss is below that of an output that gives all classes the same probability:
    `T ln C - ln binom(T + U - r, 2U)` for T frames, C classes, U labels and r adjacent repeats.

    ## Why is this bad?

    Nothing at all was learned. A bias on the blank takes a healthy run below this value within its first steps, long
    before it recognises anything. The loss looks like the plateau before CTC starts to learn, and never ends.

    ## In optax

    Logits of zeros lose exactly this: 8.65 nats for `[1, 2, 3]` in 10 frames with 5 classes. With a learning rate of 0
    they do so at every step; with `optax.adam(0.1)` the loss is 10% lower after the first update.

    ## Likely causes

    - `weights-at-rest`: a bias of the head alone would lower the loss, and not even that was learned: a learning rate
      that is 0 or far too low (a warm-up in whole numbers), or a head that no optimizer moves.
    - `no-signal`: no output that never changes is better, for there are nearly as many labels as frames: the weights
      may move, but the features say nothing.
    - `far-out`: the loss is more than 1.5 times that of a uniform output: the scores were driven far out.

    ## How to fix

    `weights-at-rest`: print the learning rate of the optimizer, and one weight of the head before and after a step;
    CTC603 says whether a gradient reaches it. `no-signal`: look at features, order of transcripts, and subsampling.
    `far-out`: a learning rate ten times lower, a warm-up, clipped gradients, from fresh weights. It worked when the
    loss falls below the uniform one in the first hundred steps.

    ## Thresholds

    - `grace_steps` (optimizer steps, 2000): healthy runs need some tens; a warm-up from 0 over tens of thousands,
      some hundreds.
    - `calls` (training calls, 1024): 95% of them must agree.
    - `margin` (share of the uniform loss, 0.02): how far below it may be.
    - `fall` (share of the loss, 0.03): by which it may have fallen over these calls.

    ## Known problems

    Fires on a CTC loss that is not meant to teach: one with weight 0 for the first epochs, one that is only logged, one
    that is maximised (adversarial training). Silent when the head says more than a uniform output by chance, such as
    one taken from another model and never moved.

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> stuck = dict(uniform_ratio=1.0, constant_ratio=5.0, loss_nats=346.0, labels=10.0, input_length_mean=100.0)
    >>> history = {name: np.full(1024, value) for name, value in stuck.items()}
    >>> history["step"] = np.arange(1000.0, 2024.0)
    >>> NoProgress().check(Readings({"history": history})).cause
    'weights-at-rest'

    Use instead:

    >>> history["uniform_ratio"] = np.full(1024, 0.2)
    >>> NoProgress().check(Readings({"history": history}))

    ## References

    - https://github.com/PaddlePaddle/PaddleOCR/issues/3707 (the log shows a learning rate of 0)
    - https://github.com/mindee/doctr/pull/195 (a softmax too many: the loss stalls near this value)
    - https://github.com/huggingface/transformers/issues/10884 (the training loss moves by 1% in 800 steps)
    """

    code = "CTC703"
    severity = Severity.WARNING
    wants = ("history",)
    causes = ("weights-at-rest", "no-signal", "far-out")
    explains = ()

    grace_steps: int = Field(2000, ge=0, description="optimizer steps before which nothing is said")
    calls: int = Field(1024, ge=16, le=1024, description="latest training calls, of which 95% must agree")
    margin: float = Field(MARGIN, ge=0, description="share by which the loss may be below that of a uniform output")
    fall: float = Field(0.03, ge=0, description="share by which the loss may have fallen over these calls")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the loss stands still at the value of a uniform output, or above it."""
        history = Window(readings["history"])
        if not history.reached(self.calls, self.grace_steps):
            return None
        window = history.latest(self.calls)
        if not window.knows_nothing(self.margin) or window.fall("uniform_ratio", errors=0) > self.fall:
            return None
        collapsed = window.median("uniform_ratio") > FAR and window.median("top_fraction") > ONE_SYMBOL
        if collapsed or not window.median("constant_ratio") > 0:
            return None
        cause = likely(window)
        ratio, nats = window.median("uniform_ratio"), window.median("loss_nats")
        least = window.quantile("uniform_ratio", 0.05)
        return self.finding(
            readings,
            cause=cause.slug,
            evidence=cause.evidence,
            message=f"the loss must fall below that of a uniform output, {nats / ratio:.4g} nats an utterance, but "
            f"over {window.span()} it was {nats:.4g}, and in 95% of them at least {least:.3g} times the uniform one",
            fix=cause.fix,
            numbers={
                "loss_nats": nats,
                "uniform_ratio": ratio,
                "constant_ratio": window.median("constant_ratio"),
                "calls": window.calls,
            },
        )


def likely(window: Window) -> Cause:
    """What the level of the loss favours."""
    uniform, constant = window.median("uniform_ratio"), window.median("constant_ratio")
    if uniform > FAR:
        return Cause(
            "far-out",
            f"{uniform:.3g} times the uniform loss: the scores are large and wrong",
            "start again with a learning rate ten times lower, a warm-up and clip_grad_norm_(…, 1.0), and look at the "
            "scale of the features",
        )
    if constant <= SAME:
        return Cause(
            "no-signal",
            f"with {window.frames_per_label():.1f} frames a label no output that never changes is better: what is "
            "missing is an output that follows the input",
            "subsample by less, or use longer units (subwords); print mean and deviation of the features of two "
            "utterances; hold transcripts against audio",
        )
    return Cause(
        "weights-at-rest",
        f"a bias of the head alone would bring the loss to {1 / constant:.0%} of this, and not even that was learned",
        "print optimizer.param_groups[0]['lr'] (a warm-up in whole numbers stays 0) and one weight of the head before "
        "and after optimizer.step(): it must be in the optimizer, and get a gradient",
    )
