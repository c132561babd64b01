"""CTC704 loss-spike."""

from __future__ import annotations

from math import log

import numpy as np
from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.dynamics._window import FAR, Window

ALIKE = 1.25
"""So many times longer, or denser in labels, the data of two windows may be and still be of one kind."""
BLOCKS = 16
"""Blocks of calls, one median of each, that the latest calls are cut into."""


class LossSpike(Rule):
    """## What it does

    Checks that the loss stays in the run's own range: that it does not jump far above it, to half or more of what an
    output that never changes would lose, and stay there.

    ## Why is this bad?

    What was learned is lost, and the steps after it are wasted: accuracy falls to 0 within some hundred steps and does
    not come back. A spike that the run recovers from is normal, and not reported.

    ## In optax

    Looks the same, and nothing stops. Free logits for `[1, 2, 3]` (10 frames, 5 classes) are at 0.007 nats after 400
    updates by `optax.adam(0.1)`; `guard_step` compares the losses of later steps with those of earlier ones.

    ## Likely causes

    - `diverged`: the weights were driven off: most often by the learning rate (a restart, a milestone, the end of a
      warm-up), or by one batch with an enormous gradient. Labels that are wrong from some file on look the same.

    ## How to fix

    Go back to the last checkpoint before the jump and continue with a lower learning rate and clipped gradients. Look
    at what changed there: the schedule, the data, the loss scale of mixed precision. It worked when the run passes that
    step and the loss stays in its range.

    ## Thresholds

    - `grace_steps` (optimizer steps, 1000): before, spikes belong to the warm-up.
    - `calls` (training calls, 256): so many must be out of range in a row. Restarts of the learning rate, bad batches
      and skipped steps are over sooner.
    - `factor` (times the earlier losses, 2): all of those remembered, at least 256 and at most 768, must be so much
      lower, but for
    - `tolerated_fraction` (share of the earlier calls, 0.05): bad batches. In short runs more: the beginning is high.
    - `level` (of the loss of the best constant output, 0.5): a lower loss is out of range, but no loss of everything.
    - `recovery` (share of the loss, 0.1): a loss that has fallen by so much over these calls is on its way back.

    ## Known problems

    Silent for a divergence that creeps, for one that comes within 1,000 calls of the first plateau, where the lengths
    of the utterances changed with the loss (a curriculum, another corpus), and for a loss that is still good. Fires
    when the task is exchanged for another one with data of the same lengths, and the loss does not fall for 256 calls.

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> ratio = np.concatenate([np.full(768, 0.05), np.full(256, 1.0)])
    >>> history = {"step": np.arange(4000.0, 5024.0), "constant_ratio": ratio, "loss_nats": 30 * ratio}
    >>> history |= {"labels": np.full(1024, 10.0), "input_length_mean": np.full(1024, 100.0)}
    >>> found = LossSpike().check(Readings({"history": history}))
    >>> found.cause, found.readings["since_step"]
    ('diverged', 4768)

    Use instead (it came back):

    >>> history["constant_ratio"][900:] = 0.05
    >>> LossSpike().check(Readings({"history": history}))

    ## References

    - https://github.com/athena-team/athena/issues/287 (accuracy falls to 0 at step 7,231 and stays there)
    - https://github.com/Sierkinhane/CRNN_Chinese_Characters_Rec/issues/59 (a lower learning rate helped)
    - https://github.com/huggingface/transformers/issues/21103 (the loss rises after epoch 12)
    """

    code = "CTC704"
    severity = Severity.WARNING
    wants = ("history",)
    causes = ("diverged",)
    explains = ("CTC701", "CTC702", "CTC703")
    aftermath = explains

    grace_steps: int = Field(1000, ge=0, description="optimizer steps before which nothing is said")
    calls: int = Field(256, ge=16, le=512, description="latest training calls, all out of range")
    factor: float = Field(2, gt=1, description="how many times lower the earlier losses must be")
    tolerated_fraction: float = Field(0.05, ge=0, lt=1, description="share of the earlier calls that may be as high")
    level: float = Field(0.5, ge=0, description="loss, as a share of what a constant output can reach at best")
    recovery: float = Field(0.1, ge=0, description="share by which a loss that comes back has fallen")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the loss has jumped far above its earlier range, stays there, and does not fall."""
        history = Window(readings["history"])
        if not history.reached(2 * self.calls, self.grace_steps):
            return None
        latest = history.latest(self.calls)
        level = latest.quantile("constant_ratio", 0.5)
        if not level >= self.level or not latest.fall("constant_ratio", errors=0) <= self.recovery:
            return None
        calls = jump(history, level / self.factor, self.calls, self.tolerated_fraction)
        if calls is None or not alike(history.before(calls), latest):
            return None
        return self._spike(readings, history.before(calls), history.latest(calls))

    def _spike(self, readings: Readings, earlier: Window, since: Window) -> Finding:
        level, nats, before = since.median("constant_ratio"), since.median("loss_nats"), earlier.median("loss_nats")
        step = int(since["step"][0])
        return self.finding(
            readings,
            cause="diverged",
            evidence=f"{level:.2f} times the least that an output which never changes can reach: "
            + ("the scores are far out" if level > FAR else "what was learned is lost"),
            message=f"the loss must stay in the run's range, {before:.4g} nats an utterance (median of {earlier.calls} "
            f"training calls), but since step {step} it has been {nats:.4g} (of {since.calls}) and does not fall",
            fix=f"go back to the last checkpoint before step {step} and continue with a lower learning rate and "
            "clip_grad_norm_(…, 1.0); look at what the schedule, the data and the loss scale did at that step",
            numbers={"loss_nats": nats, "before_nats": before, "constant_ratio": level, "since_step": step},
        )


def jump(history: Window, limit: float, calls: int, tolerated: float) -> int | None:
    """How many calls ago the loss went above a limit for good; None if it was above too often before.

    Medians of blocks are looked at, so that single batches do not count. Both sides must be as long as ``calls``.
    """
    known = np.flatnonzero(np.isfinite(history["constant_ratio"]))
    size = calls // BLOCKS
    rows = known[len(known) % size :].reshape(-1, size)
    above = np.sort(history["constant_ratio"][rows], axis=1)[:, size // 2] > limit
    first = len(above) - int(np.argmin(above[::-1])) if not above.all() else 0
    if min(first, len(above) - first) < BLOCKS or above[:first].mean() > tolerated:
        return None
    return history.calls - int(rows[first, 0])


def alike(earlier: Window, latest: Window) -> bool:
    """Whether the utterances are as long as before, and as dense in labels."""
    lengths = [(window.median("input_length_mean"), window.frames_per_label()) for window in (earlier, latest)]
    return all(abs(log(after / before)) <= log(ALIKE) for before, after in zip(*lengths, strict=True))
