"""CTC104 config-disagrees-with-head."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.vocabulary import Vocabulary


class ConfigDisagreesWithHead(Rule):
    """## What it does

    Checks that `config.vocab_size` is the width of the head.

    ## Why is this bad?

    Hugging Face compares labels with `config.vocab_size`, never with the head. When the config is the larger one, that
    check is off: labels without a class reach the loss, which checks nothing (see CTC201). When it is the smaller one,
    labels that the head does have are refused with a ValueError. Either way a saved checkpoint does not load again as
    it was: the head is rebuilt with the width of the config.

    ## In optax

    Not judged: `guard_step` is given a function, and no config comes with it. What follows is seen: a label without a
    class is CTC201, and with `vocabulary=tokenizer` a head that is too narrow is CTC101 before the first step.

    ## Likely causes

    - `config-wider-than-head`: the head was replaced by a narrower one (`model.lm_head = nn.Linear(…)`), or the config
      was edited after the model was built.
    - `config-narrower-than-head`: the same the other way round, or the head was padded to a multiple.

    ## How to fix

    Build both together: `from_pretrained(..., vocab_size=len(tokenizer), ignore_mismatched_sizes=True)`. When the head
    is as wanted, set `model.config.vocab_size` to its width. It worked when the finding is gone and a saved
    checkpoint loads without a message about sizes.

    ## Thresholds

    None: two numbers are compared.

    ## Known problems

    Fires when `config.vocab_size` belongs to another part of the model, such as an attention decoder beside the CTC
    head: ignore CTC104 there. Stays silent where there is no config.

    ## Example

    Fires, for labels 32 … 63 pass the check of Hugging Face and have no class:

    >>> from ctcguard.readings import Readings
    >>> from ctcguard.rules import rule_named
    >>> rule = rule_named("config-disagrees-with-head")()
    >>> finding = rule.check(Readings({"config_vocab_size": 64, "classes": 32}))
    >>> finding.code, finding.cause
    ('CTC104', 'config-wider-than-head')

    Use instead:

    >>> print(rule.check(Readings({"config_vocab_size": 32, "classes": 32})))
    None

    ## References

    - https://github.com/huggingface/transformers/pull/12288 (the check against the config, and only that)
    - https://github.com/sanchit-gandhi/seq2seq-speech/pull/36 (config.vocab_size updated from the tokenizer)
    - https://github.com/jonatasgrosman/huggingsound/issues/83 (sizes that differ when loading)
    """

    code = "CTC104"
    severity = Severity.WARNING
    wants = ("config_vocab_size", "classes")
    causes = ("config-wider-than-head", "config-narrower-than-head")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the two sizes differ."""
        config, classes = readings["config_vocab_size"], readings["classes"]
        if config == classes:
            return None
        if config < classes:
            cause = "config-narrower-than-head"
            effect = f"Hugging Face refuses labels from {config:.0f} on, although the head has classes for them"
        else:
            cause = "config-wider-than-head"
            effect = f"Hugging Face lets labels from {classes:.0f} on pass, although the head has no class for them"
        return self.finding(
            readings,
            cause=cause,
            evidence="the head was replaced, or the config edited, after the model was built",
            message=f"config.vocab_size is {config:.0f}, but the head has {classes:.0f} classes: {effect}",
            fix=self._fix(classes, readings.get("vocabulary")),
            numbers={"config_vocab_size": config, "classes": classes},
        )

    def _fix(self, classes: float, vocabulary: Vocabulary | None) -> str:
        if vocabulary is not None and max(vocabulary.emittable(), default=-1) < classes:
            return f"set model.config.vocab_size = {classes:.0f}: the head has a class for every id of the vocabulary"
        both = "from_pretrained(..., vocab_size=len(tokenizer), ignore_mismatched_sizes=True)"
        return f"build head and config together: {both}; if the head is right, model.config.vocab_size = {classes:.0f}"
