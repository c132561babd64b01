"""CTC105 unknown-flood."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard._array import HostArray
from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.vocabulary._blank import is_space
from ctcguard.rules.vocabulary._head import quoted
from ctcguard.vocabulary import Vocabulary

STANDARD_ERRORS = 3.0
"""Of a mean, above the limit: with seven unknown labels in a hundred every other run had a batch of more than ten."""


class UnknownFlood(Rule):
    """## What it does

    Checks that few labels are the unknown symbol (unk): that the vocabulary has the characters of the transcripts.

    ## Why is this bad?

    Whatever the vocabulary lacks becomes one and the same symbol. The model learns to say it: the loss falls well, for
    one symbol is easy, and every transcript reads `<unk><unk><unk>`. With the space missing, words run together.

    ## In optax

    Looks like a good training: the loss falls faster than with the right labels. `guard_step(train_step,
    vocabulary=tokenizer)` counts the labels inside the compiled step.

    ## Likely causes

    - `letter-case`: most labels are unknown, or those at the beginning of a text, and the vocabulary has letters of one
      case only. Hugging Face's `Wav2Vec2CTCTokenizer(do_lower_case=True)` turns text into UPPER case.
    - `missing-delimiter`: unknown labels stand alone, between others: the vocabulary has no space, or writes it `|` and
      the texts were looked up symbol by symbol.
    - `wrong-alphabet`: anything else: characters that the vocabulary was not made from.

    ## How to fix

    Make the vocabulary from the training transcripts after all normalisation, or normalise them to what it has:
    `text.lower()`, `do_lower_case=False`, `word_delimiter_token="|"`. It worked when `tokenizer(text).input_ids` of a
    few transcripts holds no unknown id.

    ## Thresholds

    - `error_fraction` (share of the labels, 0.5): from here on nothing can be learned.
    - `warning_fraction` (share of the labels, 0.1): of the utterances of a batch of ten times `min_labels`, or of the
      training calls so far, by three standard errors more than that.
    - `min_labels` (labels, 20): fewer in a batch say nothing.
    - `history_calls` (training calls, or utterances of one batch, 16): fewer have no mean to speak of.

    ## Known problems

    Needs a vocabulary that declares an unknown symbol; without one the program itself maps or drops characters. Silent
    below a tenth: rare characters, foreign names.

    ## Example

    Fires:

    >>> import numpy as np, ctcguard
    >>> call = dict(log_probs=np.log(np.full((1, 60, 4), 0.25)), input_lengths=[60], target_lengths=[24], blank=0)
    >>> symbols = {"<pad>": 0, "<unk>": 1, "A": 2, "B": 3}
    >>> verdict, = ctcguard.diagnose(**call, targets=[[1] * 24], vocabulary=symbols)
    >>> verdict.code, verdict.cause
    ('CTC105', 'letter-case')

    Use instead:

    >>> ctcguard.diagnose(**call, targets=[[2, 3] * 12], vocabulary=symbols)
    ()

    ## References

    - https://github.com/sanchit-gandhi/seq2seq-speech/issues/23 (do_lower_case=True upper-cases: all labels unknown)
    - https://github.com/jonatasgrosman/huggingsound/issues/20 (upper-case vocabulary, lower-case text)
    - https://github.com/facebookresearch/fairseq/issues/2964 (no word delimiter)
    - https://github.com/huggingface/transformers/issues/30561 (phonemes of several characters)
    """

    code = "CTC105"
    severity = Severity.ERROR
    # The scores are not looked at, but with them comes the history.
    wants = ("vocabulary", "unknown_labels", "unknown_runs", "unknown_first", "target_lengths", "score_max")
    causes = ("letter-case", "missing-delimiter", "wrong-alphabet")
    explains = ("CTC206", "CTC702")
    aftermath = explains

    error_fraction: float = Field(default=0.5, gt=0, le=1, description="share of unknown labels that is an error")
    warning_fraction: float = Field(default=0.1, gt=0, le=1, description="share that is worth a warning, if it lasts")
    min_labels: int = Field(default=20, ge=1, description="labels that a batch must hold")
    history_calls: int = Field(default=16, ge=1, description="training calls over which the warning is judged")

    @classmethod
    def is_setup(cls) -> bool:
        """It is about the labels of each call."""
        return False

    def check(self, readings: Readings) -> Finding | None:
        """Fires when too many labels of a batch, or of the latest batches, are unknown."""
        unknown, lengths = readings.column("unknown_labels"), readings.column("target_lengths")
        total = float(lengths.sum())
        share = float(unknown.sum()) / total if total else 0.0
        flood = share >= self.error_fraction and total >= self.min_labels
        here = unknown[lengths > 0] / lengths[lengths > 0] if total >= 10 * self.min_labels else np.zeros(0)
        so_far = readings.get("history", {}).get("unknown_fraction", np.zeros(0))
        lasting = [shares for shares in (here, so_far) if self._clearly_many(shares)]
        if not flood and not lasting:
            return None
        cause, evidence, fix = self._cause(readings, share)
        measured = f"{share if flood else np.nanmean(lasting[0]):.0%} of the labels"
        wrong = np.flatnonzero(unknown > 0)
        return self.finding(
            readings,
            cause=cause,
            evidence=evidence,
            message=f"transcripts must be made of known symbols, but {measured} are "
            f"{quoted(readings['vocabulary'], readings['vocabulary'].unknown)}",
            fix=fix,
            numbers={"unknown_fraction": share, "labels": total},
            affected=wrong[np.argsort(-unknown[wrong], kind="stable")],
            note=lambda i: f"{unknown[i]:.0f} of {lengths[i]:.0f} labels are unknown",
            severity=None if flood else Severity.WARNING,
        )

    def _clearly_many(self, shares: HostArray) -> bool:
        """Whether the mean of some shares is above the limit, and not by chance; NaN is none."""
        shares = shares[~np.isnan(shares)]
        if len(shares) < self.history_calls:
            return False
        error = float(shares.std(ddof=1) / np.sqrt(len(shares)))
        return float(shares.mean()) >= self.warning_fraction + STANDARD_ERRORS * error

    def _cause(self, readings: Readings, share: float) -> tuple[str, str, str]:
        vocabulary: Vocabulary = readings["vocabulary"]
        unknown, runs, first = (readings.column(f"unknown_{name}") for name in ("labels", "runs", "first"))
        holding = max(1, int((unknown > 0).sum()))
        letters = [s for i in vocabulary.emittable() if len(s := vocabulary.symbol(i) or "") == 1 and s.isalpha()]
        lower, upper = sum(map(str.islower, letters)), sum(map(str.isupper, letters))
        one_case = bool(lower) != bool(upper)
        if one_case and (share >= 0.9 or first.sum() / holding >= 0.5):
            has, lacks = ("lower", "upper") if lower else ("upper", "lower")
            evidence = f"the vocabulary has {has}-case letters only, and unknown labels begin the texts"
            fix = (
                f"write the texts in {has} case before tokenizing (text.{has}()), or give the vocabulary {lacks} case; "
            )
            return "letter-case", evidence, fix + "Wav2Vec2CTCTokenizer(do_lower_case=True) makes them UPPER case"
        alone = unknown.sum() == runs.sum() and not first.any()
        if alone:
            spaces = [s for i in vocabulary.emittable() if is_space(s := vocabulary.symbol(i) or "")]
            evidence = "unknown labels stand alone between others, as spaces do, and the vocabulary has no space"
            fix = 'add the word delimiter to the vocabulary ("|", with word_delimiter_token="|"), or remove the spaces'
            if spaces:
                evidence = f"unknown labels stand alone, as spaces do, but the vocabulary writes these {spaces[0]!r}"
                fix = f"encode with tokenizer(text), or write {spaces[0]!r} for the space before looking symbols up"
            return "missing-delimiter", evidence, fix
        some = ", ".join(map(repr, letters[:5]))
        evidence = f"the vocabulary has {len(letters)} letters ({some}{' …' if len(letters) > 5 else ''})"
        fix = "make the vocabulary from the training transcripts, after all normalisation of the text"
        return "wrong-alphabet", evidence, fix
