"""CTC502 non-finite-loss."""

from __future__ import annotations

from math import inf

import numpy as np

from ctcguard._array import HostArray
from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class NonFiniteLoss(Rule):
    """## What it does

    Checks that the loss of every utterance is a finite number.

    ## Why is this bad?

    One such utterance makes the mean of the batch NaN or infinite, and its gradient NaN: after one optimizer step
    nearly every weight is NaN, in spite of gradient clipping. Trainers hide it: Hugging Face logs the mean of earlier
    steps instead (`logging_nan_inf_filter`), others log 0, and the training "succeeds".

    ## In optax

    optax reads padded frames: NaN in two of them makes the loss NaN, `padded-frames`. Put the 0 into the features: with
    `where` behind a linear head the loss is right (6.74 nats for `[1, 2, 3]` on 8 frames of zeros, 5 classes), but its
    gradient is NaN. `infinite` does not come from too few frames, for optax takes -1e5 for ln 0: `jnp.isfinite` sees
    nothing (CTC503).

    ## Likely causes

    - `nan`: NaN in the features or the weights (CTC403), labels outside the classes (CTC201, CTC202).
    - `padded-frames`: NaN in frames beyond `input_lengths`, with a loss (optax, TensorFlow) that reads them.
    - `infinite`: too few frames for the labels (CTC301), −inf where the target needs it (CTC403), overflow.

    ## How to fix

    Fix the rule named above it, if there is one. Else look at the utterance named: features, length, transcript. Put 0
    into padded frames before the loss. `zero_infinity=True` only hides it. It worked when every loss is finite.

    ## Thresholds

    None.

    ## Known problems

    In float16 with a GradScaler, single overflows in the first steps are usual; the scaler skips those steps.

    ## Example

    Fires:

    >>> import numpy as np, ctcguard
    >>> log_probs = np.log(np.full((2, 20, 4), 0.25))
    >>> call = dict(log_probs=log_probs, targets=[[1], [2]], input_lengths=[20, 20], target_lengths=[1, 1], blank=0)
    >>> root = ctcguard.diagnose(losses=np.asarray([22.38, np.nan]), **call)[0].root
    >>> root.code, root.cause, root.utterances[0].index
    ('CTC502', 'nan', 1)

    Use instead:

    >>> ctcguard.diagnose(losses=np.asarray([22.38, 22.38]), **call)
    ()

    ## References

    - https://github.com/pytorch/pytorch/issues/14401 and https://github.com/pytorch/pytorch/issues/14335
    - https://github.com/huggingface/transformers/pull/13619 (why the log stays clean)
    - https://github.com/SeanNaren/deepspeech.pytorch/issues/485 (logged as 0)
    """

    code = "CTC502"
    severity = Severity.ERROR
    wants = ("losses",)
    causes = ("nan", "padded-frames", "infinite")
    explains = ("CTC601",)
    poisons = ("CTC401", "CTC402", "CTC403", "CTC501", "CTC502", "CTC503", "CTC504")
    aftermath = ("CTC507", "CTC604")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when a loss is NaN or infinite."""
        if -inf < readings.lowest("losses") and readings.highest("losses") < inf:
            return None
        losses = readings.column("losses")
        finite = np.isfinite(losses)
        bad = np.flatnonzero(~finite)
        cause, evidence, fix = _cause(readings, bad)
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message=f"every loss must be finite, but {bad.size} of {losses.size} are {_names(losses[bad])}",
            fix=fix,
            numbers={"utterances": bad.size, "batch": losses.size},
            affected=bad,
            note=lambda i: f"loss {losses[i]}",
        )


def _names(losses: HostArray) -> str:
    kinds = {"NaN": np.isnan(losses), "inf": np.isposinf(losses), "−inf": np.isneginf(losses)}
    return ", ".join(name for name, there in kinds.items() if there.any())


def _cause(readings: Readings, bad: HostArray) -> tuple[str, str, str]:
    losses = readings.column("losses")[bad]
    named = ", ".join(str(i) for i in bad[:5])
    if not np.isnan(losses).any():
        fix = f"look at length and transcript of utterance {named}: frames >= labels + adjacent repeats must hold"
        return "infinite", f"{_names(losses)}, no NaN: the labels have no alignment with a probability above 0", fix
    padding = readings.get("non_finite_padding_frames", np.zeros(bad.max() + 1))[bad]
    if (padding[np.isnan(losses)] > 0).all():
        fix = "put 0 into the frames beyond input_lengths before the loss: where(valid, x, 0)"
        return "padded-frames", f"{padding.sum():.0f} padded frames hold NaN or inf, and this loss reads them", fix
    fix = f"look for NaN in the features of utterance {named}, then in the weights"
    return "nan", f"{np.isnan(losses).sum()} of {readings.column('losses').size} losses are NaN", fix
