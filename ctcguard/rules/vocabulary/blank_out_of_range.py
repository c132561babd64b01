"""CTC103 blank-out-of-range."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.vocabulary import Vocabulary


class BlankOutOfRange(Rule):
    """## What it does

    Checks that the blank is a class of the head: `0 ≤ blank < classes`.

    ## Why is this bad?

    torch refuses it at the first call ("blank must be in label range"), optax fails with shapes that do not broadcast
    and do not mention the blank, Paddle fails inside its kernel. All of them only after data and model are loaded.

    ## In optax

    For a `blank_id` of -1, and from the number of classes on, optax raises `TypeError: add got incompatible shapes for
    broadcasting: (1, 4), (1, 0)` (3 labels) while the step is traced. `guard_step` says `negative`,
    `no-class-for-blank` or `blank-beyond-head` before that. From -2 on, a negative `blank_id` counts from the end in
    optax, and so it does here.

    ## Likely causes

    - `no-class-for-blank`: blank = number of classes. The blank comes after the last symbol, but the head has outputs
      for the symbols only.
    - `blank-beyond-head`: the blank is further out: it comes from another vocabulary than the head.
    - `negative`: the blank is below 0: counted from the end, or a padding value such as -100 or -1.

    ## How to fix

    Widen the head by one for `no-class-for-blank`; else pass the index that the blank has in the vocabulary, counted
    from 0. It worked when the first call of the loss returns.

    ## Thresholds

    None: the condition is exact.

    ## Known problems

    TensorFlow takes a negative blank for one counted from the end; give ctcguard the index counted from 0.

    ## Example

    Fires, for the blank of three letters is a fourth class:

    >>> import numpy as np, ctcguard
    >>> call = dict(targets=[[1, 2]], input_lengths=[9], target_lengths=[2], blank=3)
    >>> verdict, = ctcguard.diagnose(log_probs=np.log(np.full((1, 9, 3), 1 / 3)), **call)
    >>> verdict.code, verdict.cause
    ('CTC103', 'no-class-for-blank')

    Use instead:

    >>> ctcguard.diagnose(log_probs=np.log(np.full((1, 9, 4), 1 / 4)), **call)
    ()

    ## References

    - https://github.com/PaddlePaddle/Paddle/issues/44489 (blank = length of the vocabulary, no unit for it)
    - https://github.com/sooftware/kospeech/issues/111 (a vocabulary without a blank)
    """

    code = "CTC103"
    severity = Severity.ERROR
    wants = ("classes", "blank")
    causes = ("no-class-for-blank", "blank-beyond-head", "negative")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the blank is no class of the head."""
        blank, classes = readings["blank"], readings["classes"]
        if 0 <= blank < classes:
            return None
        cause, evidence, fix = self._cause(blank, classes)
        vocabulary: Vocabulary | None = readings.get("vocabulary")
        own = None if vocabulary is None else vocabulary.blank
        if own is not None and own != blank and own < classes:
            fix = f"pass blank={own}, the blank of the vocabulary (pad_token_id={own} in a Hugging Face config)"
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message=f"the blank is {blank:.0f}, but the head has {classes:.0f} classes (0 … {classes - 1:.0f})",
            fix=fix,
            numbers={"blank": blank, "classes": classes},
        )

    def _cause(self, blank: float, classes: float) -> tuple[str, str, str]:
        if blank == classes:
            evidence = "the blank comes after the last class: the head has outputs for the symbols only"
            return (
                "no-class-for-blank",
                evidence,
                f"widen the head by one: {classes + 1:.0f} outputs, the last is the blank",
            )
        if blank < 0:
            fix = f"count from 0: blank={classes - 1:.0f} if it is the last class, blank=0 if it is the first"
            return "negative", "an index below 0", fix
        fix = f"pass the index that the blank has in the vocabulary, or give the head at least {blank + 1:.0f} classes"
        return "blank-beyond-head", "the blank and the head come from different vocabularies", fix
