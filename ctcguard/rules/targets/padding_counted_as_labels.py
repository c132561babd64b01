"""CTC207 padding-counted-as-labels."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.vocabulary._blank import is_ordinary
from ctcguard.rules.vocabulary._head import quoted
from ctcguard.vocabulary import Vocabulary


class PaddingCountedAsLabels(Rule):
    """## What it does

    Checks that target lengths count the labels of each transcript, not the buffer with its padding: not every target is
    as long as the buffer and ends in a run of one and the same label.

    ## Why is this bad?

    The model must say the padding symbol many times after every transcript, each with a blank between. Short clips have
    too few frames for that (CTC301), the others learn to babble. The loss is high and falls slowly, and predictions end
    in `<pad><pad><pad>` or in a repeated letter.

    ## In optax

    `label_paddings` of zeros everywhere do this. optax reads the padding as labels and says nothing: on uniform logits
    (60 frames, 8 classes) 4 labels cost 108 nats, with 16 more of padding 99.

    ## Likely causes

    - `padding-symbol`: the run is of the vocabulary's padding or another special symbol.
    - `buffer-length`: the run is of some label, and its length differs from utterance to utterance as padding does.

    When the run is of the blank it is CTC203, of a negative number CTC202, of an id beyond the head CTC201.

    ## How to fix

    `target_lengths = (targets != padding).sum(-1)`, or keep the lengths from before the padding. It worked when the
    finding is gone.

    ## Thresholds

    - `min_room` (labels, 4): a narrower buffer says nothing.
    - `long_run_fraction` (share of the buffer, 0.5): the median run from which one batch of a static width is enough.
    - `chance_labels` (labels, 10): so many labels of the runs, beyond the shortest of these, are no chance, if they are
      one for each target or more. The shortest may be an ending that all codes have: prices in thousands end in 000.
    - `history_calls` (training calls, 16) and `history_rooms` (widths, 3): else so many calls, of so many different
      widths, must all look so.

    ## Known problems

    Codes of one fixed length that often end in a zero look the same for one call: without a vocabulary that names the
    padding it takes runs of half the buffer that differ widely, or batches of different widths. Silent for concatenated
    targets.

    ## Example

    Fires:

    >>> import numpy as np, ctcguard
    >>> call = dict(log_probs=np.log(np.full((2, 30, 6), 1 / 6)), input_lengths=[30, 30], blank=0)
    >>> call |= dict(targets=[[1, 2, 5, 5, 5, 5], [3, 5, 5, 5, 5, 5]], vocabulary=["<blank>", *"abcd", "<pad>"])
    >>> verdict, = ctcguard.diagnose(**call, target_lengths=[6, 6])
    >>> verdict.code, verdict.cause
    ('CTC207', 'padding-symbol')

    Use instead:

    >>> ctcguard.diagnose(**call, target_lengths=[2, 1])
    ()

    ## References

    - https://github.com/huggingface/transformers/pull/10145 (padding counted)
    - https://github.com/baidu-research/warp-ctc/issues/153 (flattened with the padding)
    """

    code = "CTC207"
    severity = Severity.ERROR
    wants = ("target_lengths", "transcript_room", "last_label", "tail_run", "blank", "classes")
    causes = ("padding-symbol", "buffer-length")
    explains = ("CTC301", "CTC503", "CTC701", "CTC703")

    min_room: int = Field(default=4, ge=2, description="labels that the buffer must have room for")
    long_run_fraction: float = Field(default=0.5, gt=0, le=1, description="median run that is enough in one batch")
    chance_labels: int = Field(default=10, ge=1, description="labels alike that are no chance in one batch")
    history_calls: int = Field(default=16, ge=2, description="training calls that must agree")
    history_rooms: int = Field(default=3, ge=2, description="different widths of the buffer among them")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when all targets fill the buffer and end in runs of one label that differ in length."""
        lengths, room = readings.column("target_lengths"), int(readings["transcript_room"])
        last, runs = readings.column("last_label"), readings.column("tail_run")
        if not readings.lowest("target_lengths") == readings.highest("target_lengths") == room >= self.min_room:
            return None
        if len(lengths) < 2:
            return None
        label = int(max(last.tolist(), key=last.tolist().count))
        runs = np.where(last == label, runs, 0.0)  # the longest transcript of a batch has no padding
        spread = float(runs.max() - runs.min())
        if (runs == 0).sum() > (len(runs) > 2) or not 0 <= label < readings["classes"] or label == readings["blank"]:
            return None
        if spread < 1 or runs.max() < 3:
            return None
        vocabulary: Vocabulary | None = readings.get("vocabulary")
        name = None if vocabulary is None else vocabulary.symbol(label)
        special = vocabulary is not None and label in vocabulary.special and not is_ordinary(name or "")
        if not special and not self._certain(readings, runs, room):
            return None
        symbol = quoted(vocabulary, label)
        share = float(runs.mean()) / room
        return self.finding(
            readings,
            cause="padding-symbol" if special else "buffer-length",
            evidence=f"{(runs > 0).sum()} of {len(runs)} targets end in {symbol}, up to {runs.max():.0f} times"
            + ("" if special else ", as padding does"),
            message=f"target_lengths must count real labels, but all of them are {room}, the width of the buffer "
            f"({share:.0%} of the labels are such a tail)",
            fix=f"count real labels only: target_lengths = (targets != {label}).sum(-1), or the lengths from before "
            "the padding",
            numbers={"label_room": room, "tail_label": label, "tail_run_max": float(runs.max())},
            affected=[i for i in np.argsort(-runs, kind="stable") if runs[i] > 0],
            note=lambda i: f"the last {runs[i]:.0f} of {room} labels are {symbol}",
        )

    def _certain(self, readings: Readings, runs: np.ndarray, room: int) -> bool:
        """Whether it is no code of one fixed length that happens to end alike."""
        ends_alike = runs[runs > 0]
        beyond = float((ends_alike - ends_alike.min()).sum())
        no_chance = beyond >= max(self.chance_labels, len(ends_alike))
        if no_chance and float(np.median(runs)) >= self.long_run_fraction * room:
            return True
        history = readings.get("history")
        if history is None:
            return False
        latest = {
            name: history[name][-self.history_calls :] for name in ("label_room", "tail_label", "tail_run_spread")
        }
        alike = bool((latest["tail_label"] == latest["tail_label"][-1]).all())
        rooms = len(np.unique(latest["label_room"]))
        enough = len(latest["label_room"]) == self.history_calls and rooms >= self.history_rooms
        return enough and alike and bool((latest["tail_run_spread"] >= 1).all())
