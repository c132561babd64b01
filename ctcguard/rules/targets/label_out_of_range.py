"""CTC201 label-out-of-range."""

from __future__ import annotations

import numpy as np

from ctcguard._words import plural
from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.targets._labels import shown
from ctcguard.rules.vocabulary._head import wider_head
from ctcguard.vocabulary import Vocabulary


class LabelOutOfRange(Rule):
    """## What it does

    Checks that every label within `target_lengths` is below the number of classes.

    ## Why is this bad?

    No framework says so. torch on the CPU reads the memory behind the frame: the loss is plausible, now and then 1e35,
    and the backward pass writes out of bounds (a crash much later, or none). optax, Keras and TensorFlow (dense
    labels) turn the label into a row of zeros, which is a symbol of probability 1: the loss is too low, then negative,
    in one public case after 1.5k steps. Keras on torch reads past the frame as torch does.

    ## In optax

    On logits of zeros (10 frames, 5 classes) `[1, 2, 3]` costs 8.65 nats, `[1, 2, 5]` 1.88 and `[5, 6, 7]` -4.25.
    Trained by `optax.adam(0.1)`, `[1, 2, 5]` is below 0 after 6 updates and at -3.58 after 400. `guard_step` says
    CTC201 at the first step that holds such a label, when the loss is still positive.

    ## Likely causes

    - `head-too-narrow`: the vocabulary has ids that the head has no class for (CTC101 says which).
    - `no-class-for-blank`: the largest label is the number of classes: the head has an output for each symbol, and
      none for the blank.
    - `label-beyond-head`: anything else: labels of another vocabulary, or a padding value within `target_lengths`.

    ## How to fix

    Give the head a class for every id: `vocab_size=len(tokenizer)`, plus one where the blank is not among the symbols.
    It worked when the finding is gone for a whole epoch: rare symbols come late.

    ## Thresholds

    None: the condition is exact.

    ## Known problems

    Stays silent for labels beyond `target_lengths`, and for a wrong vocabulary whose ids all fit. Sees each batch on
    its own: give a vocabulary, and CTC101 knows before the first one.

    ## Example

    Fires, for label 7 has no class:

    >>> import numpy as np, ctcguard
    >>> call = dict(log_probs=np.log(np.full((1, 9, 4), 0.25)), input_lengths=[9], target_lengths=[2], blank=0)
    >>> verdict, = ctcguard.diagnose(**call, targets=[[1, 7]])
    >>> verdict.code, verdict.cause
    ('CTC201', 'label-beyond-head')

    Use instead:

    >>> ctcguard.diagnose(**call, targets=[[1, 3]])
    ()

    ## References

    - https://github.com/sanchit-gandhi/seq2seq-speech/issues/28 (optax-like loss, negative after 1.5k steps)
    - https://github.com/pytorch/pytorch/issues/193794 (torch reads and writes out of bounds)
    - https://discuss.pytorch.org/t/best-practices-to-solve-nan-ctc-loss/151913 (no output for the blank)
    - https://github.com/huggingface/transformers/issues/12270 (no check in Hugging Face at the time)
    """

    code = "CTC201"
    severity = Severity.ERROR
    wants = ("out_of_range_labels", "label_max", "classes")
    causes = ("head-too-narrow", "no-class-for-blank", "label-beyond-head")
    explains = ("CTC301", "CTC401", "CTC501", "CTC502", "CTC503", "CTC504", "CTC601")
    unsafe = True

    def check(self, readings: Readings) -> Finding | None:
        """Fires when a label is no class of the head."""
        if readings.highest("out_of_range_labels") <= 0:
            return None
        counts = readings.column("out_of_range_labels")
        healthy = counts == 0
        classes, label_max = readings["classes"], readings["label_max"]
        wrong = np.flatnonzero(~healthy)
        cause, evidence, fix = self._cause(label_max, classes, readings.get("vocabulary"))

        def note(i: int) -> str:
            return f"{plural(counts[i], 'label')} ≥ {classes:.0f}" + shown(readings, i, lambda label: label >= classes)

        width = f"the head has {classes:.0f} classes (0 … {classes - 1:.0f})"
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message=f"{len(wrong)} of {len(counts)} utterances hold labels up to {label_max:.0f}, but {width}",
            fix=fix,
            numbers={"label_max": label_max, "classes": classes, "utterances": len(wrong), "batch": len(counts)},
            affected=wrong[np.argsort(-counts[wrong], kind="stable")],
            note=note,
        )

    def _cause(self, label_max: float, classes: float, vocabulary: Vocabulary | None) -> tuple[str, str, str]:
        largest = -1 if vocabulary is None else max(vocabulary.emittable(), default=-1)
        fix = wider_head(vocabulary, classes, max(largest, label_max) + 1)
        if vocabulary is not None and largest >= classes:
            return "head-too-narrow", f"the {vocabulary.kind} has ids up to {largest}", fix
        if label_max == classes and (vocabulary is None or vocabulary.blank is None):
            evidence = "the largest label is the number of classes: the head may lack the one for the blank"
            fix = f"widen the head to at least {classes + 1:.0f} outputs, not {classes:.0f}: each symbol and the blank"
            return "no-class-for-blank", evidence, f"{fix} (vocab_size=len(tokenizer) if that has the blank)"
        if vocabulary is None:
            return "label-beyond-head", "the head was built for fewer symbols than the labels have", fix
        evidence = f"the {vocabulary.kind} goes up to {largest} only: the labels come from another one, or are padding"
        return "label-beyond-head", evidence, f"encode the texts with this {vocabulary.kind}, or {fix}"
