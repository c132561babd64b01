"""CTC205 dropped-labels."""

from __future__ import annotations

import numpy as np

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.vocabulary._blank import is_ordinary
from ctcguard.rules.vocabulary._head import quoted
from ctcguard.vocabulary import Vocabulary


class DroppedLabels(Rule):
    """## What it does

    Checks that the framework removed no label from within a transcript before it called the loss.

    ## Why is this bad?

    Hugging Face removes all labels that equal `config.pad_token_id`, which is the blank and 0 by default. If id 0 is a
    letter, that letter is gone from every transcript: the loss is healthy and falls well, and every prediction lacks
    it.

    ## In optax

    Cannot occur: optax removes nothing. A blank among the labels stays there (CTC203).

    ## Likely causes

    - `blank-is-a-letter`: the removed symbol is one that transcripts hold: `pad_token_id` of the config is not the
      padding of the tokenizer.
    - `blank-in-labels`: the removed symbol is the blank of the tokenizer: something put it between the letters.

    ## How to fix

    `blank-is-a-letter`: `from_pretrained(..., pad_token_id=tokenizer.pad_token_id)`, or
    `model.config.pad_token_id = tokenizer.pad_token_id`. `blank-in-labels`: insert no blanks, the loss does that; pad
    labels with -100. It worked when the finding is gone and the letter shows up in predictions.

    ## Thresholds

    None: labels are counted.

    ## Known problems

    Labels that equal the blank before the first or after the last other label are taken for padding, so a letter that
    only ever begins or ends transcripts is missed. Sees the models of transformers only.

    ## Example

    Fires:

    >>> import numpy as np, ctcguard
    >>> call = dict(log_probs=np.log(np.full((1, 9, 4), 0.25)), input_lengths=[9], blank=0)
    >>> given = np.asarray([[1, 0, 2, 0, 3]])
    >>> verdict, = ctcguard.diagnose(**call, targets=[1, 2, 3], target_lengths=[3], given_labels=given)
    >>> verdict.code, verdict.cause
    ('CTC205', 'blank-is-a-letter')

    Use instead:

    >>> padded = np.asarray([[1, 2, 3, 0, -100]])
    >>> ctcguard.diagnose(**call, targets=[1, 2, 3], target_lengths=[3], given_labels=padded)
    ()

    ## References

    - https://github.com/huggingface/transformers/issues/18612 (pad_token_id is not the blank)
    - https://github.com/jonatasgrosman/huggingsound/pull/68 (the same, fixed)
    """

    code = "CTC205"
    severity = Severity.ERROR
    wants = ("removed_labels", "given_label_count", "blank")
    causes = ("blank-is-a-letter", "blank-in-labels")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when a label between two others was removed."""
        removed, given, blank = (
            readings.column("removed_labels"),
            readings.column("given_label_count"),
            readings["blank"],
        )
        if readings.highest("removed_labels") <= 0:
            return None
        wrong = np.flatnonzero(~(removed == 0))
        vocabulary: Vocabulary | None = readings.get("vocabulary")
        symbol = quoted(vocabulary, blank)
        own = vocabulary is not None and vocabulary.blank == blank and not is_ordinary(vocabulary.symbol(blank) or "")
        padding = None if vocabulary is None else vocabulary.blank
        right = "tokenizer.pad_token_id" if padding is None else f"{padding} (the padding of the tokenizer)"
        fix = (
            "insert no blanks between the letters, the loss does that; pad labels with -100"
            if own
            else f"set model.config.pad_token_id = {right}, or pass pad_token_id= to from_pretrained"
        )
        total, of = removed.sum(), given.sum()
        return self.finding(
            readings,
            cause="blank-in-labels" if own else "blank-is-a-letter",
            evidence=f"the loss takes {symbol} for the blank, and Hugging Face removes the blank from the labels",
            message=f"every label must reach the loss, but {total:.0f} of {of:.0f} labels ({total / of:.0%}) were "
            f"removed before it, all of them {symbol}",
            fix=fix,
            numbers={"removed_labels": float(total), "given_labels": float(of), "blank": blank},
            affected=wrong[np.argsort(-removed[wrong], kind="stable")],
            note=lambda i: f"{removed[i]:.0f} of {given[i]:.0f} labels removed",
        )
