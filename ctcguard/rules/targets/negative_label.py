"""CTC202 negative-label."""

from __future__ import annotations

import numpy as np

from ctcguard._words import plural
from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.targets._labels import shown

IGNORE_INDEX = -100


class NegativeLabel(Rule):
    """## What it does

    Checks that no label within `target_lengths` is below 0.

    ## Why is this bad?

    No CTC loss knows an ignore index. torch on the CPU reads the memory before the frame: the loss is -1e35 or
    plausible, and the backward pass writes out of bounds. optax, Keras and TensorFlow take such a label for a symbol
    of probability 1, which fits anywhere and costs nothing. The run learns that the padding is what was said.

    ## In optax

    On logits of zeros (10 frames, 5 classes) `[1, 2, -100]` costs 1.88 nats when no label is marked as padding, and is
    below 0 after 6 updates by `optax.adam(0.1)`; with `label_paddings=(labels < 0).astype(float)` it costs 9.89, which
    is right. `guard_step` says `ignore-index` or `padding` at the first step.

    ## Likely causes

    - `ignore-index`: -100, which cross-entropy ignores and CTC does not: labels from a collator, not masked.
    - `padding`: another negative value, mostly -1: `target_lengths` count the padding, or a mask expects another one.

    ## How to fix

    Count only real labels: `target_lengths = (labels >= 0).sum(-1)`, and pass the padded labels as they are, or
    `labels.masked_select(labels >= 0)` in one row. For a Hugging Face model pad with -100 and nothing else: its loss
    removes only that (and the blank). It worked when the finding is gone.

    ## Thresholds

    None: the condition is exact.

    ## Known problems

    Stays silent for negative labels beyond `target_lengths`: they are padding, and no loss reads them.

    ## Example

    Fires, for the length counts the padding:

    >>> import numpy as np, ctcguard
    >>> call = dict(log_probs=np.log(np.full((1, 9, 4), 0.25)), targets=[[1, 2, -100]], input_lengths=[9], blank=0)
    >>> verdict, = ctcguard.diagnose(**call, target_lengths=[3])
    >>> verdict.code, verdict.cause
    ('CTC202', 'ignore-index')

    Use instead:

    >>> ctcguard.diagnose(**call, target_lengths=[2])
    ()

    ## References

    - https://github.com/pytorch/pytorch/issues/193794 (torch reads and writes out of bounds)
    - https://github.com/huggingface/transformers/pull/10145 (which labels Hugging Face masks)
    - https://github.com/k2-fsa/icefall/issues/240 (padding -1)
    - https://github.com/keras-team/keras/issues/21876 (padding -1 counted as labels)
    """

    code = "CTC202"
    severity = Severity.ERROR
    wants = ("negative_labels", "label_min")
    causes = ("ignore-index", "padding")
    explains = ("CTC301", "CTC401", "CTC501", "CTC502", "CTC503", "CTC504", "CTC601")
    unsafe = True

    def check(self, readings: Readings) -> Finding | None:
        """Fires when a label is negative."""
        if readings.highest("negative_labels") <= 0:
            return None
        counts = readings.column("negative_labels")
        healthy = counts == 0
        lowest = readings["label_min"]
        wrong = np.flatnonzero(~healthy)

        def note(i: int) -> str:
            return f"{plural(counts[i], 'label')} below 0" + shown(readings, i, lambda label: label < 0)

        cause, evidence, fix = self._cause(lowest)
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message=f"{len(wrong)} of {len(counts)} utterances hold labels down to {lowest:.0f}; labels must be ≥ 0",
            fix=fix,
            numbers={"label_min": lowest, "utterances": len(wrong), "batch": len(counts)},
            affected=wrong[np.argsort(-counts[wrong], kind="stable")],
            note=note,
        )

    def _cause(self, lowest: float) -> tuple[str, str, str]:
        if lowest == IGNORE_INDEX:
            fix = "mask = labels != -100; pass labels.masked_select(mask) with target_lengths=mask.sum(-1)"
            return "ignore-index", "-100 is the ignore index of cross-entropy, not of CTC", fix
        fix = "count real labels only: target_lengths = (labels >= 0).sum(-1)"
        return (
            "padding",
            f"target_lengths count padding of {lowest:.0f}",
            f"{fix}; for a Hugging Face model pad with -100",
        )
