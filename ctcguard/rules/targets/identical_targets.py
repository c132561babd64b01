"""CTC206 identical-targets."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class IdenticalTargets(Rule):
    """## What it does

    Checks that different utterances have different transcripts: not one and the same for call after call.

    ## Why is this bad?

    The model learns to say that one sentence, whatever it hears: the loss falls to almost nothing within a few hundred
    steps, and evaluation on the same data set looks perfect.

    ## In optax

    Looks the same: a loss that falls to almost 0. Seen through `guard_step` from the labels of each step.

    ## Likely causes

    - `one-transcript`: a file read once instead of per utterance, a variable of an earlier loop, a cache with one key,
      a `map` over a data set whose function ignores its argument.

    ## How to fix

    Print the transcripts of two batches side by side with their ids, where the batch is made. It worked when the
    finding is gone.

    ## Thresholds

    - `calls` (training calls, 16): all of them with this one transcript.
    - `different_lengths` (input lengths, 4): so many different ones among them, so that it is not one utterance: at the
      usual three speeds it has three.

    ## Known problems

    Silent when one utterance is overfitted on purpose (its length does not change, or takes three values), for
    concatenated targets, and with clips of one fixed length. Fires when the data really are one phrase, spoken many
    times: without any clip of something else the model learns to say it to everything.

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> history = {"fingerprint": np.full(16, 31.0), "input_length_max": np.arange(50.0, 66.0)}
    >>> IdenticalTargets().check(Readings({"history": history})).cause
    'one-transcript'

    Use instead:

    >>> history["fingerprint"] = np.arange(16.0)
    >>> IdenticalTargets().check(Readings({"history": history}))

    ## References

    - https://github.com/huggingface/datasets/issues/2913
    - https://github.com/huggingface/datasets/issues/2323
    - https://github.com/huggingface/datasets/issues/2188
    """

    code = "CTC206"
    severity = Severity.WARNING
    wants = ("history",)
    causes = ("one-transcript",)
    explains = ("CTC703",)

    calls: int = Field(default=16, ge=2, description="training calls that must agree")
    different_lengths: int = Field(default=4, ge=2, description="different input lengths among them")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the latest calls all had one transcript, and utterances of several lengths."""
        prints = readings["history"]["fingerprint"][-self.calls :]
        lengths = np.unique(readings["history"]["input_length_max"][-self.calls :])
        alike = len(prints) == self.calls and bool((prints == prints[0]).all())
        if not alike or len(lengths) < self.different_lengths:
            return None
        return self.finding(
            readings,
            cause="one-transcript",
            evidence=f"utterances of {len(lengths)} different lengths ({lengths[0]:.0f} to {lengths[-1]:.0f} frames)",
            message=f"utterances must have their own transcripts, but in the last {self.calls} training calls all "
            "had one and the same",
            fix="look where transcripts are paired with audio: print ids and transcripts of two batches side by side",
            numbers={"calls": self.calls, "different_lengths": len(lengths)},
            affected=range(min(1, int(readings.get("batch", 0)))),
            note=lambda i: "the transcript of all of them",
        )
