"""CTC203 blank-in-targets."""

from __future__ import annotations

import numpy as np

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.targets._labels import shown
from ctcguard.rules.vocabulary._blank import is_space
from ctcguard.rules.vocabulary._head import quoted
from ctcguard.vocabulary import Vocabulary


class BlankInTargets(Rule):
    """## What it does

    Checks that no label within `target_lengths` is the blank.

    ## Why is this bad?

    CTC puts the blanks itself. With one among the labels the same alignment is counted several times, so that the
    "probability" can exceed 1: in every framework the loss falls below 0, after tens of steps, with perfectly
    normalised input. The symbol that shares the index with the blank is never learned.

    ## In optax

    Nothing shows at first: on logits of zeros (10 frames, 5 classes) `[1, 0, 3]` costs 8.65 nats, as `[1, 2, 3]` does.
    Trained by `optax.adam(0.1)`, it is below 0 after 12 updates and at -3.57 after 400; `[1, 2, 0, 0]`, a tail that
    `label_paddings` do not mark, is below 0 after 11. `guard_step` says `blank-index` or `padding-counted` at the first
    step.

    ## Likely causes

    - `padding-counted`: no blank is followed by a label: they are a tail of padding that `target_lengths` count.
    - `space-is-blank`: the vocabulary says that this index is the space between words.
    - `blank-index`: blanks are followed by labels: the index belongs to a symbol too, or blanks were inserted by hand.

    ## How to fix

    `padding-counted`: `target_lengths = (targets != blank).sum(-1)`. Else give the blank a class that no label uses:
    one more class, and `blank=` its index. Do not insert blanks. It worked when the finding is gone and the loss
    stays above 0.

    ## Thresholds

    None: the condition is exact.

    ## Known problems

    Fires for a lone blank that stands for an empty transcript; pass target length 0 instead, which every framework
    takes today. Stays silent for blanks beyond `target_lengths`, and for those that Hugging Face removed before the
    loss (CTC102 finds their cause).

    ## Example

    Fires, for the lengths count the padding:

    >>> import numpy as np, ctcguard
    >>> call = dict(log_probs=np.log(np.full((1, 9, 4), 0.25)), targets=[[1, 2, 0, 0]], input_lengths=[9], blank=0)
    >>> verdict, = ctcguard.diagnose(**call, target_lengths=[4])
    >>> verdict.code, verdict.cause
    ('CTC203', 'padding-counted')

    Use instead:

    >>> ctcguard.diagnose(**call, target_lengths=[2])
    ()

    ## References

    - https://github.com/yl4579/AuxiliaryASR/issues/4 (the space is the blank; negative loss)
    - https://github.com/huggingface/transformers/pull/10145 (padding counted)
    - https://github.com/espnet/espnet/issues/700 (label 0 is the blank)
    - https://github.com/PaddlePaddle/Paddle/issues/22923 (a tail of zeros counted)
    """

    code = "CTC203"
    severity = Severity.ERROR
    wants = ("blank_labels", "blanks_before_label", "blank", "target_lengths")
    causes = ("padding-counted", "space-is-blank", "blank-index")
    explains = ("CTC301", "CTC401", "CTC501", "CTC502", "CTC503", "CTC504", "CTC601", "CTC603")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when a label is the blank."""
        blanks, lengths, blank = readings.column("blank_labels"), readings.column("target_lengths"), readings["blank"]
        if readings.highest("blank_labels") <= 0:
            return None
        healthy = blanks == 0
        wrong = np.flatnonzero(~healthy)

        def note(i: int) -> str:
            return f"{blanks[i]:.0f} of {lengths[i]:.0f} labels" + shown(readings, i, lambda label: label == blank)

        cause, evidence, fix = self._cause(readings, wrong)
        share = f"{len(wrong)} of {len(blanks)} utterances ({len(wrong) / len(blanks):.0%})"
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message=f"{share} hold the blank, {quoted(readings.get('vocabulary'), blank)}, within their target_lengths",
            fix=fix,
            numbers={
                "blank": blank,
                "utterances": len(wrong),
                "batch": len(blanks),
                "blank_labels": float(blanks.sum()),
            },
            affected=wrong[np.argsort(-blanks[wrong], kind="stable")],
            note=note,
        )

    def _cause(self, readings: Readings, wrong: np.ndarray) -> tuple[str, str, str]:
        vocabulary: Vocabulary | None = readings.get("vocabulary")
        blank = readings["blank"]
        trailing = (readings.column("blanks_before_label")[wrong] == 0).all()
        if trailing and (vocabulary is None or vocabulary.is_blank_name(blank) or blank in vocabulary.special):
            fix = f"count real labels only: target_lengths = (targets != {blank}).sum(-1)"
            return "padding-counted", "no blank is followed by a label: they are a tail of padding", fix
        last = readings.get("classes", "its index")
        wider = f"give the blank a class that no label uses: one class more, and blank={last}"
        declared = vocabulary is not None and vocabulary.blank not in (None, blank)
        right = (
            f"pass blank={vocabulary.blank}, the blank of the {vocabulary.kind}" if vocabulary and declared else wider
        )
        if vocabulary is not None and is_space(vocabulary.symbol(blank) or ""):
            return "space-is-blank", f"class {quoted(vocabulary, blank)} is the space between words", right
        evidence = "class {} stands among the labels" if trailing else "class {} is followed by other labels"
        evidence = evidence.format(quoted(vocabulary, blank))
        if declared:
            return "blank-index", evidence, right
        return "blank-index", evidence, f"{wider}; insert no blanks by hand: the loss does that"
