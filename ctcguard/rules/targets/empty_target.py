"""CTC204 empty-target."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class EmptyTarget(Rule):
    """## What it does

    Checks for utterances without any label, which teach only the blank.

    ## Why is this bad?

    One silent clip is legitimate: its loss is -Σ ln p(blank). But torch's `mean` divides each loss by its number of
    labels, and this one by 1: a single silent clip can carry half of the batch's loss. When no target of the run has a
    label, texts got lost on their way (wrong letter case, a filter, a wrong alphabet), and training learns to say
    nothing.

    ## In optax

    optax returns a loss for each utterance and divides none by its labels: in their mean a silent clip (all of its
    `label_paddings` are 1) counts as any other. On logits of zeros (10 frames, 5 classes) it costs 16.09 nats, three
    labels 8.65. `guard_step` says `silence` or `all-empty`, without the share of the loss; labels that stand under the
    paddings of a whole batch are CTC303, at the first of them.

    ## Likely causes

    - `silence`: single utterances: silence, noise, or a transcript that became empty when it was cleaned.
    - `all-empty`: no utterance of the run had a label so far, and there were `all_empty_utterances` or more: the
      transcripts never reached the loss.

    ## How to fix

    `silence`: nothing, if it is meant; else drop the utterances named. Against their weight: `reduction="sum"`, divided
    by the number of labels of the batch. `all-empty`: print what the tokenizer makes of one transcript. It worked when
    target lengths are above 0.

    ## Thresholds

    - `all_empty_utterances` (utterances, 64): so many from the start of the run on, all of them empty, are an error. In
      data for a wake word nine clips of ten may be background: 64 of them in a row come once in 850 runs.

    ## Known problems

    The run so far is looked at in its first call and in every sixteenth: with batches of 4 lost texts are an error
    after 16 calls, and information until then. They stay information when they are lost later in a run, until 1,024
    calls had none. Data sorted by the length of the transcript may begin with nothing but silence: raise the threshold
    there.

    ## Example

    Fires as information:

    >>> import numpy as np, ctcguard
    >>> call = dict(log_probs=np.log(np.full((2, 9, 4), 0.25)), targets=[[1, 2], [3, 3]], input_lengths=[9, 9], blank=0)
    >>> verdict, = ctcguard.diagnose(**call, target_lengths=[2, 0])
    >>> verdict.code, verdict.cause, str(verdict.root.severity)
    ('CTC204', 'silence', 'information')

    Use instead:

    >>> ctcguard.diagnose(**call, target_lengths=[2, 2])
    ()

    ## References

    - https://github.com/pytorch/pytorch/issues/18215 (empty targets are valid today)
    - https://github.com/open-mmlab/mmocr/pull/1618 (empty texts in OCR)
    - https://github.com/NVIDIA-NeMo/Speech/issues/234 (all texts cleaned away)
    """

    code = "CTC204"
    severity = Severity.INFORMATION
    # score_max is not judged: it comes with the losses, so that the rule does not run before those are there.
    wants = ("target_lengths", "score_max")
    causes = ("silence", "all-empty")
    explains = ()

    all_empty_utterances: int = Field(default=64, ge=1, description="utterances of a run that are not all silence")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when an utterance has no label."""
        if readings.lowest("target_lengths") > 0:
            return None
        lengths = readings.column("target_lengths")
        healthy = (lengths > 0) | (lengths < 0)  # negative ones are CTC303's
        if healthy.all():
            return None
        empty = np.flatnonzero(~healthy)
        share = self._loss_share(readings, empty)
        weight = "" if share is None else f"; they carry {share:.0%} of the batch's mean loss"
        seen = self._seen(readings) if len(empty) == len(lengths) else 0
        all_empty = seen >= self.all_empty_utterances
        fix = "nothing, if they are silence; else drop them"
        if share is not None:
            fix += ', or use reduction="sum", divided by the number of labels of the batch'
        if all_empty:
            fix = "print what the tokenizer makes of one transcript: letter case, cleaning, alphabet"
        return self.finding(
            readings,
            cause="all-empty" if all_empty else "silence",
            evidence=f"no transcript has reached the loss so far, in {seen} utterances"
            if all_empty
            else "single utterances without a label",
            message=f"{len(empty)} of {len(lengths)} utterances have an empty target{weight}",
            fix=fix,
            numbers={"utterances": len(empty), "batch": len(lengths), "loss_share_fraction": share},
            affected=empty,
            note=lambda i: f"{lengths[i]:.0f} labels",
            severity=Severity.ERROR if all_empty else None,
        )

    def _seen(self, readings: Readings) -> int:
        """Utterances since the start of the run, if none had a label; 0 if one had, or where that is not known."""
        batch = len(readings.column("target_lengths"))
        if "history" in readings:
            labels = readings["history"]["labels"]
            return batch * len(labels) if (labels == 0).all() else 0
        return batch if len(readings.get("length_history", ())) <= 1 else 0

    def _loss_share(self, readings: Readings, empty: np.ndarray) -> float | None:
        """Their share of a mean over utterances of loss / labels; None when it is not such a mean."""
        if readings.get("reduction") != "mean" or "losses" not in readings:
            return None
        terms = readings.column("losses") / np.maximum(readings.column("target_lengths"), 1)
        total = float(terms.sum())
        return float(terms[empty].sum()) / total if 0 < total < np.inf else None
