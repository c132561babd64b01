"""CTC102 blank-disagrees."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.vocabulary._blank import why_wrong
from ctcguard.rules.vocabulary._head import quoted
from ctcguard.vocabulary import Vocabulary


class BlankDisagrees(Rule):
    """## What it does

    Checks that the blank of the loss is the blank (padding) of the tokenizer, and no symbol that a transcript holds.

    ## Why is this bad?

    A symbol that serves as the blank is never learned. Hugging Face removes such labels before the loss without a
    word: the loss looks perfect and every word lacks that letter. Elsewhere they stay in the targets, alignments are
    counted several times, and the loss goes below 0. The decoder takes another class for the blank and prints noise.

    ## In optax

    `blank_id` is 0 unless it is passed, and optax knows no vocabulary. With the blank last, `[1, 2, 0]` ("bca") on
    logits of zeros (10 frames, 5 classes) begins at 8.65 nats whether `blank_id` is 4, as it should be, or 0; then it
    is below 0 after 13 updates by `optax.adam(0.1)`, and a text without "a" looks right for ever. With
    `guard_step(train_step, vocabulary=tokenizer)` this is `other-blank` before the step is compiled.

    ## Likely causes

    - `other-blank`: the tokenizer declares another blank. `config.pad_token_id` was left at its default, 0, or
      `blank=` at 0.
    - `ordinary-symbol`: the blank is a letter, a digit or the space: the vocabulary has no blank of its own.
    - `special-symbol`: the blank is the unknown symbol, or the beginning or end of a sentence.

    ## How to fix

    Hugging Face: `from_pretrained(..., pad_token_id=tokenizer.pad_token_id)`. Elsewhere: pass `blank=` the index of a
    symbol that stands for nothing else. It worked when the finding is gone and every letter shows up in predictions.

    ## Thresholds

    None: ids are compared.

    ## Known problems

    It is only a warning when the blank is `<s>` or `</s>` and no transcript gets one (training is right, decoding is
    not), or when unknown symbol and padding are one. Stays silent for a blank behind the vocabulary (NeMo), a symbol
    spelt like a blank, one in brackets in a list (fairseq's blank is `<s>`), a tokenizer without padding, and a list
    without a blank when there are more classes than symbols (labels may be shifted by one). CTC203 then sees the
    labels themselves, except those that Hugging Face removes.

    ## Example

    Fires, for the loss takes "a" for the blank:

    >>> import numpy as np, ctcguard
    >>> log_probs = np.log(np.full((1, 9, 4), 0.25))
    >>> call = dict(log_probs=log_probs, targets=[[1, 2]], input_lengths=[9], target_lengths=[2])
    >>> verdict, = ctcguard.diagnose(**call, blank=0, vocabulary=["a", "b", "c", "<blank>"])
    >>> verdict.code, verdict.cause
    ('CTC102', 'other-blank')

    Use instead:

    >>> ctcguard.diagnose(**call, blank=3, vocabulary=["a", "b", "c", "<blank>"])
    ()

    ## References

    - https://github.com/huggingface/transformers/issues/18612 (pad_token_id is not the blank)
    - https://github.com/SeanNaren/deepspeech.pytorch/issues/354 (0 in the loss, another index in the decoder)
    - https://github.com/castorini/howl/pull/47 (the blank is a label too)
    """

    code = "CTC102"
    severity = Severity.ERROR
    wants = ("vocabulary", "classes", "blank")
    causes = ("other-blank", "ordinary-symbol", "special-symbol")
    explains = ("CTC203", "CTC205")
    aftermath = explains

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the blank stands for something else."""
        vocabulary: Vocabulary = readings["vocabulary"]
        blank, classes = readings["blank"], readings["classes"]
        cause = why_wrong(vocabulary, blank, classes)
        if cause is None:
            return None
        return self.finding(
            readings,
            cause=cause.slug,
            evidence=cause.evidence,
            message=f"the blank must be a class that no transcript uses, but the loss uses {quoted(vocabulary, blank)}",
            fix=cause.fix,
            numbers={"blank": blank, "vocabulary_blank": vocabulary.blank, "classes": classes},
            severity=cause.severity,
        )
