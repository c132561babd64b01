"""What two rules share: one symbol wins everywhere, and the loss is that of an output that never changes."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from ctcguard.finding import Finding
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.dynamics._window import FAR, MARGIN, Window

FEW_FRAMES = 2.5
"""Frames a label below which CTC has little room."""
UNPAIRED = 0.25
"""Correlation of labels with frames below which transcripts look as if they belonged to other utterances."""


class Cause(NamedTuple):
    """A cause slug, the evidence for it, and what to do."""

    slug: str
    evidence: str
    fix: str


class CollapseRule(Rule):
    """A rule about an output that does not follow the input."""

    grace_steps: int = Field(2000, ge=0, description="optimizer steps before which nothing is said")
    calls: int = Field(1024, ge=16, le=1024, description="latest training calls, which must all agree")
    level: float = Field(0.6, ge=0, description="loss, as a share of what a constant output can reach at best")
    fall: float = Field(0.01, ge=0, description="share by which the loss may have fallen over these calls")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when one symbol wins everywhere while the loss stands still at the level of a constant output."""
        history = Window(readings["history"])
        if not history.reached(self.calls, self.grace_steps):
            return None
        window = history.latest(self.calls)
        if not self.collapsed(window, readings) or not self._stands_still(window):
            return None
        cause = self.likely(window, readings)
        ratio, nats = window.median("constant_ratio"), window.median("loss_nats")
        return self.finding(
            readings,
            cause=cause.slug,
            evidence=cause.evidence,
            message=f"{self.said(window, readings)}; the loss stood still at {nats:.4g} nats an utterance, {ratio:.2f} "
            "times the least that an output which never changes can reach when all labels are equally frequent",
            fix=cause.fix,
            numbers={
                "loss_nats": nats,
                "constant_ratio": ratio,
                "uniform_ratio": window.median("uniform_ratio"),
                "frames_per_label": window.frames_per_label(),
                "calls": window.calls,
            },
        )

    def collapsed(self, window: Window, readings: Readings) -> bool:
        """Whether one symbol wins everywhere."""
        raise NotImplementedError

    def said(self, window: Window, readings: Readings) -> str:
        """What must hold and what came: the first half of the message."""
        raise NotImplementedError

    def likely(self, window: Window, readings: Readings) -> Cause:
        """What the evidence favours."""
        return likely(window)

    def _stands_still(self, window: Window) -> bool:
        """The loss does not fall, is as high as that of a constant output, and is not CTC703's."""
        at_uniform = window.knows_nothing(MARGIN) and window.median("uniform_ratio") < FAR
        high = window.quantile("constant_ratio", 0.25) >= self.level
        return high and not at_uniform and window.fall("constant_ratio") <= self.fall


def likely(window: Window) -> Cause:
    """What the lengths and the level of the loss favour, most telling first."""
    ratio, frames, pairing = window.median("constant_ratio"), window.frames_per_label(), window.pairing()
    if ratio > FAR:
        return Cause(
            "far-out",
            f"a bias of the head alone would bring the loss to {1 / ratio:.0%} of this: the scores were driven far out",
            "start again with a learning rate ten times lower, a warm-up and clip_grad_norm_(…, 1.0): weights that "
            "were driven far out seldom come back",
        )
    if pairing < UNPAIRED:
        return Cause(
            "unpaired",
            f"the number of labels does not grow with the number of frames (their correlation is below {pairing:.2f}): "
            "the transcripts may belong to other utterances",
            "print ids, lengths and transcripts of one batch and hold them against its audio or images: what sorts or "
            "filters one of them must do the same to the other; if they belong together, lower the learning rate",
        )
    if frames < FEW_FRAMES:
        return Cause(
            "few-frames",
            f"there are {frames:.1f} frames a label: alignments have little room",
            "subsample by less, or use longer units (subwords), until there are 4 frames a label or more; then try a "
            "learning rate ten times lower with a longer warm-up",
        )
    return Cause(
        "constant-output",
        f"the output does not follow the input; there are frames enough ({frames:.1f} a label), and losses and lengths "
        "say no more than that",
        "try in this order: a learning rate ten times lower with a longer warm-up (higher, if it is below 1e-5); then "
        "one batch alone, which must be learned within a few hundred steps: if it is not, print mean and deviation of "
        "the features and the gradient of the encoder; if it is, hold transcripts against audio. Large models trained "
        "from scratch may need some thousand steps more",
    )
