"""CTC507 hidden-from-log."""

from __future__ import annotations

import numpy as np

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class HiddenFromLog(Rule):
    """## What it does

    Checks that a trainer does not log a finite loss for steps whose loss was NaN or infinite.

    ## Why is this bad?

    The curve looks healthy while the run is not. The Hugging Face Trainer puts the mean of the steps before in place of
    such a loss (`logging_nan_inf_filter`, on by default): with one log line a step it shows `loss: 0.0`, for ever if
    the weights are NaN, and training "succeeds".

    ## In optax

    Not measured: no trainer stands between. What replaces a NaN in a step of one's own hides it just so:
    `jnp.nan_to_num` makes a loss of NaN 0.

    ## Likely causes

    - `nan-filtered`: `logging_nan_inf_filter=True`, and the total loss was not finite.

    ## How to fix

    Look for the term that is not finite; when it is CTC, CTC502 has said so. Set `logging_nan_inf_filter=False` in
    `TrainingArguments`, so that the log shows what happens. It worked when the log shows the loss of every step.

    ## Thresholds

    None.

    ## Known problems

    With several processes only this one's losses are known. Evaluation losses are not looked at: the Trainer leaves out
    what is not finite there, too.

    ## Example

    Fires:

    >>> from ctcguard.readings import Readings
    >>> readings = Readings({"logged_loss": 0.0, "hidden_losses": 1, "hidden_of": 1, "hidden_step": 2})
    >>> found = HiddenFromLog().check(readings)
    >>> found.code, found.message
    ('CTC507', 'the log says loss 0, but the loss of 1 of 1 micro-batches was not finite, first in step 2')

    Use instead:

    >>> HiddenFromLog().check(Readings({"logged_loss": 5.1, "hidden_losses": 0, "hidden_of": 1, "hidden_step": 0}))

    ## References

    - https://github.com/huggingface/transformers/pull/13619 (the filter)
    - https://github.com/huggingface/trl/issues/6702 (a run that went wrong behind it)
    """

    code = "CTC507"
    severity = Severity.WARNING
    wants = ("logged_loss", "hidden_losses", "hidden_of", "hidden_step")
    causes = ("nan-filtered",)
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """Fires when a finite loss is logged for steps of which one was not finite."""
        logged, hidden = float(readings["logged_loss"]), readings["hidden_losses"]
        if hidden == 0 or not np.isfinite(logged):
            return None
        losses = readings.get("losses")
        ctc = losses is not None and bool(np.isfinite(losses).all())
        evidence = "the CTC losses of the last step are finite: it is another term" if ctc else "logging_nan_inf_filter"
        return self.finding(
            readings,
            cause="nan-filtered",
            evidence=f"{evidence}; the Trainer logs the mean of the steps before instead",
            message=f"the log says loss {logged:.4g}, but the loss of {hidden} of {readings['hidden_of']} "
            f"micro-batches was not finite, first in step {readings['hidden_step']}",
            fix="look for the term of the loss that is not finite, and set logging_nan_inf_filter=False in "
            "TrainingArguments, so that the log shows it",
            numbers={name: readings[name] for name in self.wants},
        )
