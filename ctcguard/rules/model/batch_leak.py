"""CTC801 batch-leak."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.model._passes import Parting, amount, changed, numbers, parting

TURN = (
    "{place} takes the other of its first two axes for the batch: make it with batch_first={other} instead of {first}, "
    "or transpose its input"
)
NORMALISE = (
    "{place} must not use statistics of the batch in eval mode: give it track_running_stats=True, and let model.eval() "
    "reach it, or use a norm of single utterances (GroupNorm, LayerNorm)"
)


class BatchLeak(Rule):
    """## What it does

    Checks that the output for an utterance does not depend on its neighbours in the batch. On request (`probe_model`):
    before the first update the model is run again with every second utterance replaced by the one before it, and the
    others must come out as before.

    ## Why is this bad?

    Frames of several utterances are mixed, and each is trained on the transcript of another. Nothing shows it:
    log-probs are normalised, the loss is finite, positive and falls a little, as far as the frequencies of the labels
    carry it. Then it stays there, and one clip is transcribed differently at every batch size.

    ## In optax

    Not offered: the guard sees the loss of a JAX step, not the function that makes the logits. By hand: call that
    function on `batch` and on `batch[jnp.arange(len(batch)) // 2 * 2]`; rows 0, 2, 4 … must agree to rounding.

    ## Likely causes

    - `reshape-instead-of-transpose`: a `view` or `reshape` gives batch and time each other's size, and leaves all
      values where they are in memory. The graph of the log-probs or the input of a module shows it, with both shapes.
    - `wrong-batch-axis`: an RNN or attention layer takes the time axis for the batch (`batch_first`).
    - `normalisation-over-batch`: a norm takes its statistics from the whole batch, in eval mode too.
    - `mixes-utterances`: none of these; the finding names the first module that gives another result.

    ## How to fix

    `reshape-instead-of-transpose`: write `x.transpose(0, 1)`. `wrong-batch-axis`: make the layer with the `batch_first`
    of its input. `normalisation-over-batch`: keep running statistics, or normalise each utterance by itself.
    `mixes-utterances`: follow the batch axis through the code that the finding names. It worked when the line `end` of
    findings.jsonl says that the passes ran, and this finding is gone.

    ## Thresholds

    None. The limit is what rounding may do in kernels for another shape, as a part of the standard deviation of the
    outputs: 0.001 in float32 (measured: 0.000006), 0.02 on other devices than the CPU, and for weights in half
    precision 0.06 (float16; measured: 0.014) and 0.4 (bfloat16; measured: 0.1). The passes run without autocast.

    ## Known problems

    Batch statistics are only seen where they are used in eval mode, in which the passes run. A batch of one utterance
    shows nothing. An error also where it is meant, as in test-time adaptation: ignore it there. Parts that are called
    one after the other are run one by one, and what lies between them is not seen. Not run: what is no module, a step
    that is compiled as a whole, weights spread over processes, inputs that are not understood; the line `end` of
    findings.jsonl says so. The passes leave weights, buffers, attributes and random numbers as they were, but what else
    `forward` does (hooks, prints, counters outside of modules) is done again.

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> columns = {"neighbour_change": np.asarray([0.0, 0.8]), "output_limit": 1e-4}
    >>> BatchLeak().check(Readings({**columns, "reshape": ((4, 50, 20), (50, 4, 20))})).cause
    'reshape-instead-of-transpose'

    Use instead:

    >>> BatchLeak().check(Readings({**columns, "neighbour_change": np.asarray([0.0, 2e-6])}))

    ## References

    - https://discuss.pytorch.org/t/for-beginners-do-not-use-view-or-reshape-to-swap-dimensions-of-tensors/75524
    - https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html (batch_first)
    """

    code = "CTC801"
    severity = Severity.ERROR
    wants = ("neighbour_change", "output_limit")
    causes = ("reshape-instead-of-transpose", "wrong-batch-axis", "normalisation-over-batch", "mixes-utterances")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """Fires when an utterance with other neighbours changes by more than rounding."""
        changes, limit = readings.column("neighbour_change"), readings["output_limit"]
        if (changes <= limit).all():
            return None
        cause, evidence, fix = _cause(readings, parting(readings))
        mixed = changed(readings, "neighbour_change")
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message="the output for an utterance must not depend on its neighbours, but beside others it changes by up "
            f"to {amount(readings, changes.max())}",
            fix=fix,
            numbers=numbers(readings, "neighbour_change"),
            affected=mixed,
            note=lambda i: f"changes by {changes[i]:.2g}",
        )


def _cause(readings: Readings, place: Parting) -> tuple[str, str, str]:
    """Slug, evidence, fix."""
    evidence = place.evidence()
    reshape, first, axis = readings.get("reshape"), readings.get("batch_first"), readings.get("batch_axis")
    if reshape:
        before, after = reshape
        evidence = f"a view makes {before} into {after}: sizes swapped, values left where they are in memory"
        return "reshape-instead-of-transpose", evidence, f"write x.transpose(0, 1) instead of x.reshape{after}"
    if place.inside and first is not None and axis == (1 if first else 0):
        evidence = f"{evidence}; it has batch_first={first}, but the batch is axis {axis} of its input"
        return "wrong-batch-axis", evidence, TURN.format(place=place.place, first=first, other=not first)
    if place.inside and "Norm" in place.module:
        return "normalisation-over-batch", evidence, NORMALISE.format(place=place.place)
    look = f"look {place.where()}" if place.module else "look through its forward"
    return "mixes-utterances", evidence, f"{look}: no softmax, mean, attention or reshape may go over the batch axis"
