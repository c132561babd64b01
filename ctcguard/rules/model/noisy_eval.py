"""CTC803 noisy-eval."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.model._passes import amount, changed, numbers

REACH = (
    "model.eval() must reach {place}: register it (torch.nn.ModuleList instead of a list), and do not set it to "
    "training in forward"
)
DROP = (
    "write F.dropout(x, p, training=self.training) in {place}; for scaled_dot_product_attention, dropout_p=p if "
    "self.training else 0"
)


class NoisyEval(Rule):
    """## What it does

    Checks that the model gives the same output for the same batch twice in eval mode. On request (`probe_model`).

    ## Why is this bad?

    Dropout or masking that goes on in evaluation makes every transcript a little worse and every measurement noisy: the
    error rate moves from run to run with the same checkpoint, and the best checkpoint is the luckiest one.

    ## In optax

    Not offered: the guard sees the loss of a JAX step, not the function that makes the logits. There randomness needs a
    key, so it cannot go unnoticed: look for a key that is handed to the model in evaluation (`deterministic=False`,
    `use_running_average=False`).

    ## Likely causes

    - `dropout-in-evaluation`: dropout as a function without `training=self.training`: `torch.nn.functional.dropout` is
      on by default.
    - `module-in-training-mode`: a module that `model.eval()` does not reach, because it stands in a plain list or is
      set to training in `forward`.
    - `random-in-evaluation`: something else draws random numbers: SpecAugment, sampling, noise.
    - `keeps-state`: nothing draws random numbers; the model remembers something of the pass before.

    ## How to fix

    `dropout-in-evaluation`: write `F.dropout(x, p, training=self.training)`, and in scaled_dot_product_attention
    `dropout_p=p if self.training else 0`. `module-in-training-mode`: put the modules
    into `torch.nn.ModuleList`. `random-in-evaluation`: do it `if self.training` only. `keeps-state`: reset what is kept
    at the beginning of `forward`. It worked when two calls of the model in eval mode agree.

    ## Thresholds

    None. The limit is that of CTC801: what rounding may do, measured for each dtype.

    ## Known problems

    Silent for noise that happens not to be drawn in two passes, and for what is drawn between parts of a model that are
    called one after the other. While outputs are random, CTC801 and CTC802 cannot be told and are not judged.

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> columns = {"repeat_change": np.asarray([0.3, 0.2]), "output_limit": 1e-4}
    >>> found = NoisyEval().check(Readings({**columns, "random_draw": "native_dropout", "random_site": "model.py:31"}))
    >>> found.cause, found.evidence
    ('dropout-in-evaluation', 'native_dropout draws random numbers at model.py:31')

    Use instead:

    >>> NoisyEval().check(Readings({**columns, "repeat_change": np.zeros(2)}))

    ## References

    - https://github.com/espnet/espnet/pull/3539 (dropout before the CTC head, in evaluation too)
    - https://github.com/espnet/espnet/pull/3617
    """

    code = "CTC803"
    severity = Severity.WARNING
    wants = ("repeat_change", "output_limit")
    causes = ("dropout-in-evaluation", "module-in-training-mode", "random-in-evaluation", "keeps-state")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the same batch gives another output in a second pass."""
        changes, limit = readings.column("repeat_change"), readings["output_limit"]
        if (changes <= limit).all():
            return None
        cause, fix = _cause(readings)
        draw, place, site = (str(readings.get(f"random_{name}", "")) for name in ("draw", "place", "site"))
        where = f"{f' in {place}' if place else ''}{f' at {site}' if site else ''}"
        return self.finding(
            readings,
            cause=cause,
            evidence=f"{draw} draws random numbers{where}" if draw else "no random number was drawn in the second pass",
            message="in eval mode the same batch must give the same output twice, but it differs by up to "
            f"{amount(readings, changes.max())}",
            fix=fix,
            numbers=numbers(readings, "repeat_change"),
            affected=changed(readings, "repeat_change"),
            note=lambda i: f"differs by {changes[i]:.2g}",
        )


def _cause(readings: Readings) -> tuple[str, str]:
    """Slug and fix."""
    draw, place = str(readings.get("random_draw", "")), str(readings.get("random_place", "") or "the model")
    if not draw:
        return "keeps-state", "reset what the model keeps from one call to the next, at the beginning of its forward"
    if readings.get("random_in_training_mode"):
        return "module-in-training-mode", REACH.format(place=place)
    if "dropout" in draw or "bernoulli" in draw:
        return "dropout-in-evaluation", DROP.format(place=place)
    return "random-in-evaluation", f"draw random numbers in {place} only if self.training"
