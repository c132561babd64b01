"""CTC101 head-too-narrow."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.vocabulary._head import quoted, wider_head
from ctcguard.vocabulary import Vocabulary

SHOWN_SYMBOLS = 5


class HeadTooNarrow(Rule):
    """## What it does

    Checks that the head has a class for every id that the tokenizer can turn a transcript into.

    ## Why is this bad?

    No framework checks a label against the head. optax, Keras and TensorFlow take a label without a class for one of
    probability 1: the loss is too low at once and negative after some hundred steps. torch on the CPU reads the memory
    behind the frame, so the loss looks plausible, and its backward pass writes there. Hugging Face compares labels with
    `config.vocab_size` only. The rarest symbols have the largest ids, so it may take hours until the first one comes.

    ## In optax

    A label without a class is a symbol of probability 1. On logits of zeros (10 frames) `[1, 2, 5]` costs 10.47 nats
    with 6 classes and 1.88 with 5; trained by `optax.adam(0.1)`, the latter is below 0 after 6 updates. With
    `guard_step(train_step, vocabulary=tokenizer)` this is `missing-classes` as soon as the step is traced, before it is
    compiled.

    ## Likely causes

    - `missing-classes`: the largest id that a transcript can turn into is not below the width of the head. The head
      was built from another vocabulary, from `tokenizer.vocab_size` (which leaves out added tokens), or before symbols
      were added.

    ## How to fix

    Build the head from the tokenizer: `from_pretrained(..., vocab_size=len(tokenizer))`, with
    `ignore_mismatched_sizes=True` where the checkpoint has a head of its own; else give the last layer that many
    outputs. It worked when this finding is gone before the first step.

    ## Thresholds

    None: the condition is exact.

    ## Known problems

    Fires for symbols that the tokenizer has but your transcripts never use, unless they are special (`<s>`, `</s>`,
    padding). The unknown symbol counts as used. Stays silent when the ids given to the loss are not those of the
    vocabulary (for example shifted by one): CTC201 then sees the labels themselves.

    ## Example

    Fires, for the letter "d" has no class:

    >>> import numpy as np, ctcguard
    >>> call = dict(targets=[[1, 2]], input_lengths=[9], target_lengths=[2], blank=0, vocabulary=["<pad>", *"abcd"])
    >>> verdict, = ctcguard.diagnose(log_probs=np.log(np.full((1, 9, 4), 1 / 4)), **call)
    >>> verdict.code, verdict.cause
    ('CTC101', 'missing-classes')

    Use instead:

    >>> ctcguard.diagnose(log_probs=np.log(np.full((1, 9, 5), 1 / 5)), **call)
    ()

    ## References

    - https://github.com/sanchit-gandhi/seq2seq-speech/issues/28 (negative only after 1.5k steps)
    - https://github.com/speechbrain/speechbrain/issues/1589 (asks for exactly this check)
    - https://github.com/k2-fsa/icefall/issues/2034 (another vocabulary when fine-tuning)
    - https://github.com/huggingface/transformers/issues/15392 (three different sizes of one tokenizer)
    """

    code = "CTC101"
    severity = Severity.ERROR
    wants = ("vocabulary", "classes")
    causes = ("missing-classes",)
    explains = ("CTC103", "CTC104", "CTC201", "CTC401", "CTC501", "CTC502", "CTC503", "CTC504", "CTC601")
    aftermath = explains

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the largest id of a transcript is no class of the head."""
        vocabulary: Vocabulary = readings["vocabulary"]
        classes = readings["classes"]
        largest = max(vocabulary.emittable(), default=-1)
        if largest < classes:
            return None
        beyond = [label for label in vocabulary.emittable() if not label < classes]
        top = classes - 1
        named = ", ".join(quoted(vocabulary, label) for label in beyond[:SHOWN_SYMBOLS])
        more = f" … ({len(beyond)} in all)" if len(beyond) > SHOWN_SYMBOLS else ""
        return self.finding(
            readings,
            cause="missing-classes",
            evidence=f"no class for {named}{more}",
            message=f"the vocabulary has ids up to {largest}, but the head has {classes:.0f} classes (0 … {top:.0f})",
            fix=wider_head(vocabulary, classes, largest + 1),
            numbers={"largest_id": largest, "classes": classes, "missing": len(beyond)},
        )
