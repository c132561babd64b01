"""CTC506 accumulation-scale."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class AccumulationScale(Rule):
    """## What it does

    Checks that a trainer which accumulates gradients of A micro-batches takes 1/A of the loss of each, when that loss
    is a mean.

    ## Why is this bad?

    Otherwise loss and gradient are A times too large. Measured with the Hugging Face Trainer: the same eight utterances
    in one batch give a loss of 13.53 and a gradient norm of 7.79, in four micro-batches 54.13 and 31.16. Clipping then
    cuts what it should not, SGD steps A times too far, losses of runs cannot be compared. The Trainer leaves the
    division to models that take `num_items_in_batch`; those with CTC take it and ignore it.

    ## In optax

    Not measured: no trainer stands between. `optax.MultiSteps` takes the mean of the micro-batches by default
    (`use_grad_mean=True`): of four gradients of 1, 2, 3 and 6 it applies 3.

    ## Likely causes

    - `mean-reduction`: the loss of a micro-batch is a mean (`ctc_loss_reduction="mean"`), and is used as it is.

    ## How to fix

    Set `trainer.model_accepts_loss_kwargs = False` before `train()`: then the Trainer divides. Equal to it:
    `model.accepts_loss_kwargs = False` before the Trainer is made. If the learning rate was found with the wrong scale,
    look at it again. It worked when the logged loss is that of one large batch.

    ## Thresholds

    - `tolerance_fraction` (0.01): how near to 1 the factor must be in every micro-batch of a step, where 1/A is right.

    ## Known problems

    Looks at the first three accumulated steps of `Trainer.train`. Silent where the loss of a micro-batch is not the
    mean of its one CTC call: other terms, several heads, a weight, several processes (there the Trainer may multiply
    by their number, too).

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> readings = {"accumulation_steps": 4, "ctc_losses": np.full(4, 13.53)}
    >>> found = AccumulationScale().check(Readings({**readings, "trainer_losses": np.full(4, 13.53)}))
    >>> found.cause, found.severity.value
    ('mean-reduction', 'warning')

    Use instead:

    >>> AccumulationScale().check(Readings({**readings, "trainer_losses": np.full(4, 3.3825)}))

    ## References

    - https://github.com/huggingface/transformers/issues/37766 (the loss grows with the accumulation)
    - https://github.com/huggingface/blog/pull/2414 (where it comes from)
    """

    code = "CTC506"
    severity = Severity.WARNING
    wants = ("accumulation_steps", "trainer_losses", "ctc_losses")
    causes = ("mean-reduction",)
    explains = ()

    tolerance_fraction: float = Field(0.01, ge=0, description="how near to 1 the factor must be in every micro-batch")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when every micro-batch counts in full; a loss that is no number belongs to CTC502."""
        steps, used, own = readings["accumulation_steps"], readings["trainer_losses"], readings["ctc_losses"]
        if steps < 2 or not np.isfinite(own).all() or (own == 0).any():
            return None
        if not (np.abs(used / own - 1) <= self.tolerance_fraction).all():
            return None
        return self.finding(
            readings,
            cause="mean-reduction",
            evidence=f"each is a mean, and was taken as it is: {used[0]:.4g} for a CTC loss of {own[0]:.4g}, not "
            f"{own[0] / steps:.4g}",
            message=f"of {steps} micro-batches each must count 1/{steps}, but each counts in full: loss and gradient "
            f"are {steps} times too large ({np.sum(used):.4g} for {np.mean(own):.4g} nats)",
            fix="set trainer.model_accepts_loss_kwargs = False before trainer.train(): then it divides by "
            f"gradient_accumulation_steps={steps}",
            numbers={"accumulation_steps": steps, "loss": float(np.sum(used)), "ctc_loss": float(np.mean(own))},
        )
