"""CTC303 target-length-out-of-range."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.lengths._paddings import Misplaced, misplaced_labels


class Cause(NamedTuple):
    """A cause slug, what selected it, and what to write instead."""

    slug: str
    evidence: str
    fix: str


class TargetLengthOutOfRange(Rule):
    """## What it does

    Checks that target lengths fit the targets: each in 0 … the width of padded targets, or, when all labels stand in
    one row, adding up to its length. For a loss that takes paddings instead of lengths (optax): that these mark the end
    of each target.

    ## Why is this bad?

    torch refuses both with a RuntimeError that names neither utterance nor cause. Older bindings (warp-ctc) and own
    kernels read on: the labels of one utterance are those of the next, the loss looks plausible, and the run learns
    nothing. optax counts the labels that are no padding and then reads that many from the front, whatever they are.

    ## In optax

    Labels and `label_paddings` have one shape, so `sum-mismatch`, `beyond-buffer` and `negative` cannot occur. With 1
    and 0 exchanged, `[1, 2, 3]` and `[1, 2]` on logits of zeros (10 frames, 5 classes) cost 16.09 and 12.09 nats, not
    8.65 and 9.89, and 0.02 and 0.01 after 400 updates by `optax.adam(0.1)`: a healthy curve, for no label and for the
    first one. `guard_step` says `inverted-paddings`, `all-padding` or `not-right-padded` at the first step.

    ## Likely causes

    - `sum-mismatch`: one row of labels, and lengths that do not add up to it: padded targets were flattened, or
      DataParallel cut the row.
    - `beyond-buffer`: a length is larger than the padded width, or no number: lengths were taken before the texts were
      cut, or from another batch.
    - `swapped`: they look like numbers of frames, and the input lengths fit the labels: the two were exchanged.
    - `negative`: a length is below 0.
    - `inverted-paddings`: targets begin with padding: 1 was passed for labels that are none.
    - `all-padding`: no label of the whole batch is left, although what is marked as padding looks like labels.
    - `not-right-padded`: labels follow after padding.

    ## How to fix

    Take lengths and targets from the same list of labels, after every filter. Pass padded targets as (batch, labels),
    or join them: `torch.cat([row[:n] for row, n in zip(targets, target_lengths)])`. optax: `label_paddings` is 1.0
    for a label that is padding, and padding stands behind the labels. It worked when the finding is gone.

    ## Thresholds

    None: the condition is exact.

    ## Known problems

    Stays silent for a row that is too long when the batch is one utterance and the loss is not torch's: the rest can
    only be padding. Stays silent when lengths fit by chance (one too long, another too short).

    ## Example

    Fires, for padded targets were flattened:

    >>> import numpy as np, ctcguard
    >>> call = dict(log_probs=np.log(np.full((2, 9, 4), 0.25)), input_lengths=[9, 9], target_lengths=[2, 3], blank=0)
    >>> verdict = ctcguard.diagnose(**call, targets=[1, 2, 0, 1, 2, 3])[0]
    >>> verdict.code, verdict.cause
    ('CTC303', 'sum-mismatch')

    Use instead:

    >>> ctcguard.diagnose(**call, targets=[[1, 2, 0], [1, 2, 3]])
    ()

    ## References

    - https://github.com/Holmeyoung/crnn-pytorch/issues/62 (lengths and labels disagree)
    - https://github.com/smeetrs/deep_avsr/issues/38 (several GPUs cut the row)
    - https://github.com/baidu-research/warp-ctc/issues/153 (padded labels flattened)
    """

    code = "CTC303"
    severity = Severity.ERROR
    wants = ("target_lengths", "label_room", "concatenated")
    causes = (
        "sum-mismatch",
        "beyond-buffer",
        "swapped",
        "negative",
        "inverted-paddings",
        "all-padding",
        "not-right-padded",
    )
    explains = ("CTC202", "CTC203", "CTC204", "CTC301", "CTC502", "CTC503", "CTC504", "CTC601", "CTC603")

    everywhere = True

    def check(self, readings: Readings) -> Finding | None:
        """Fires when target lengths do not fit the targets."""
        misplaced = misplaced_labels(readings)
        if misplaced is not None:
            return self._misplaced(readings, misplaced)
        lengths, room = readings.column("target_lengths"), readings["label_room"]
        fits = (lengths >= 0) & (lengths <= room)
        total = lengths.sum()
        spare = total < room and len(lengths) == 1 and readings.get("framework") != "torch"
        in_sum = not readings["concatenated"] or total == room or spare
        if fits.all() and in_sum:
            return None
        # A row that does not add up is wrong for the whole call: nobody knows from which utterance on.
        whole_call = readings["concatenated"] and not (lengths < 0).any()
        wrong = np.flatnonzero(~fits)
        where = "all labels in one row" if readings["concatenated"] else "padded labels"
        message = f"target lengths must be in 0 … {room:.0f} ({where}), {len(wrong)} of {len(lengths)} are not"
        if whole_call:
            message = f"target lengths add up to {total:.0f}, but there are {room:.0f} labels in one row"
        cause = self._sum_cause(lengths, total, room) if whole_call else self._cause(readings, lengths, room)
        return self.finding(
            readings,
            cause=cause.slug,
            evidence=cause.evidence,
            message=message,
            fix=cause.fix,
            numbers={"label_room": room, "target_length_max": float(lengths.max()), "target_length_sum": float(total)},
            affected=[] if whole_call else wrong,
            note=lambda i: f"target length {lengths[i]:g} of {room:.0f}",
        )

    def _misplaced(self, readings: Readings, found: Misplaced) -> Finding:
        lengths = readings.column("target_lengths")
        return self.finding(
            readings,
            cause=found.slug,
            evidence=found.evidence,
            message="padding must stand behind the labels, but labels follow after it, or none is left, "
            f"in {found.rows.size} of {lengths.size} targets",
            fix=found.fix,
            numbers={"label_room": readings["label_room"], "utterances": found.rows.size},
            affected=found.rows,
            note=lambda i: f"{lengths[i]:.0f} labels by its paddings",
            severity=found.severity,
        )

    def _cause(self, readings: Readings, lengths: np.ndarray, room: float) -> Cause:
        fix = "take lengths and targets from the same lists of labels, after every filter"
        if (lengths < 0).any():
            return Cause("negative", f"the smallest is {lengths.min():g}", fix)
        frames, width = readings.get("input_lengths"), readings.get("frames", 0)
        if frames is not None and (frames <= room).all() and (frames < lengths).all() and (lengths <= width).all():
            evidence = f"they reach {lengths.max():g} of {width} frames, and the input lengths only {frames.max():g}"
            return Cause("swapped", evidence, "exchange the two: ctc_loss(..., input_lengths, target_lengths)")
        return Cause("beyond-buffer", f"the largest is {lengths.max():g}", fix)

    def _sum_cause(self, lengths: np.ndarray, total: float, room: float) -> Cause:
        width = room / len(lengths)
        if total < room and width == round(width) and width >= lengths.max():
            evidence = f"{room:.0f} = {len(lengths)} × {width:.0f}: padded targets were flattened"
            return Cause("sum-mismatch", evidence, f"pass them as ({len(lengths)}, {width:.0f}), not flattened")
        fix = "join labels and lengths from the same list: torch.cat(rows), [len(row) for row in rows]"
        if total < room:
            return Cause("sum-mismatch", f"labels that belong to no utterance: {room - total:.0f}", fix)
        evidence = f"missing labels: {total - room:.0f}"
        return Cause(
            "sum-mismatch", evidence, f"{fix}; with DataParallel pass padded targets, for it cuts a row in parts"
        )
