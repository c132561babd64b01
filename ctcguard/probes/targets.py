"""Probes of the targets: what the labels of each utterance are, within ``target_lengths``. O(batch × labels).

Every function takes a `CTCCall` and returns a dict of 0-d arrays and columns (batch,). None branches on values.
"""

from __future__ import annotations

from ctcguard._array import Array, arange, is_host, namespace, whole
from ctcguard.call import CTCCall

FAULTS = ("out_of_range_labels", "negative_labels", "blank_labels", "blanks_before_label")


class _Labels:
    """The labels of a call with their owners, for padded and concatenated targets alike.

    Flags about labels have the shape of the targets; `count` sums them up to one number an utterance.
    """

    def __init__(self, call: CTCCall) -> None:
        # Never pull an array off its device, or out of a trace, to meet one that is on the host.
        reference = call.targets if is_host(call.target_lengths) else call.target_lengths
        xp = self.xp = namespace(reference)
        self.targets = whole(reference, call.targets)
        lengths = whole(reference, call.target_lengths)
        size = int(call.targets.shape[-1])
        position = arange(reference, size)
        if call.concatenated:
            ends = xp.cumulative_sum(lengths)
            self.owner = xp.searchsorted(ends, position, side="right")
            self.ends = xp.clip(ends, 0, size)
            self.starts = xp.clip(ends - lengths, 0, size)
            self.counted = self.owner < call.batch
        else:
            self.counted = position[None, :] < lengths[:, None]

    def count(self, flags: Array) -> Array:
        """How many labels of each utterance carry the flag, (batch,)."""
        xp = self.xp
        flags = xp.astype(flags & self.counted, xp.float32)
        if flags.ndim == 2:
            return xp.sum(flags, axis=1)
        total = xp.concat([xp.zeros_like(flags[:1]), xp.cumulative_sum(flags)])
        return xp.take(total, self.ends) - xp.take(total, self.starts)

    def repeats(self) -> Array:
        """How many labels of each utterance equal the one before them, (batch,)."""
        alike = self.targets[..., 1:] == self.targets[..., :-1]
        if alike.ndim == 1:
            return self.count(self.after(alike))
        return self.xp.sum(self.xp.astype(alike & self.counted[:, 1:], self.xp.float32), axis=1)

    def at_ends(self) -> tuple[Array, Array]:
        """Flags of the first and of the last counted label of each utterance."""
        xp = self.xp
        inside = self.counted[..., 1:] & self.counted[..., :-1]
        if inside.ndim == 1:
            inside = inside & (self.owner[1:] == self.owner[:-1])
        edge = xp.zeros_like(self.counted[..., :1])
        return self.counted & ~xp.concat([edge, inside], axis=-1), self.counted & ~xp.concat([inside, edge], axis=-1)

    def after(self, flags: Array) -> Array:
        """Flags about a label and the one before it, given from the second on; the first of an utterance has none."""
        xp = self.xp
        if flags.ndim == 1:
            flags = flags & (self.owner[1:] == self.owner[:-1])
        return xp.concat([xp.zeros_like(self.counted[..., :1]), flags], axis=-1)


def label_range(call: CTCCall) -> dict[str, Array]:
    """The extremes of the labels, and what CTC needs further frames for.

    Parameters
    ----------
    call : CTCCall
        ``targets`` (batch, labels) or (labels,), ``target_lengths`` (batch,).

    Returns
    -------
    dict
        Column ``adjacent_repeats`` (batch,): labels within ``target_lengths`` that equal the one before them. Scalars
        over the whole batch: ``label_max``, the largest label, -1 when there is none from 0 on; ``label_min``, the
        lowest negative label, 0 when there is none; ``blank_count``, how many labels are the blank. Targets without
        room for a label give -1 and zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> call = ctc_call(
    ...     log_probs=np.zeros((1, 9, 4)), targets=[[1, 1, 0, 7]], input_lengths=[9], target_lengths=[4], blank=0
    ... )
    >>> found = label_range(call)
    >>> int(found["adjacent_repeats"][0]), int(found["label_max"]), int(found["label_min"]), int(found["blank_count"])
    (1, 7, 0, 1)
    """
    if 0 in call.targets.shape:
        xp, none = namespace(call.target_lengths), namespace(call.target_lengths).zeros_like(call.target_lengths)
        scalars = {"label_max": xp.asarray(-1), "label_min": xp.asarray(0), "blank_count": xp.asarray(0)}
        return {"adjacent_repeats": none, **scalars}
    labels = call.once(_Labels)
    xp, targets, counted = labels.xp, labels.targets, labels.counted
    return {
        "adjacent_repeats": labels.repeats(),
        "label_max": xp.maximum(xp.max(xp.where(counted, targets, -1)), -1),
        "label_min": xp.minimum(xp.min(xp.where(counted, targets, 0)), 0),
        "blank_count": xp.sum(xp.astype(counted & (targets == call.blank), xp.float32)),
    }


def label_faults(call: CTCCall) -> dict[str, Array]:
    """Labels outside the classes, below zero, or equal to the blank.

    Parameters
    ----------
    call : CTCCall
        ``targets`` (batch, labels) or (labels,), ``target_lengths`` (batch,).

    Returns
    -------
    dict
        Columns (batch,), counts of labels within ``target_lengths``: ``out_of_range_labels`` (≥ classes),
        ``negative_labels`` (< 0), ``blank_labels``, ``blanks_before_label`` (a blank directly followed by another
        label; 0 when all blanks stand at the end). Targets without room for a label give zeros.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> call = ctc_call(
    ...     log_probs=np.zeros((1, 9, 4)), targets=[[1, 1, 0, 7]], input_lengths=[9], target_lengths=[4], blank=0
    ... )
    >>> faults = label_faults(call)
    >>> int(faults["out_of_range_labels"][0]), int(faults["blanks_before_label"][0])
    (1, 1)
    """
    if 0 in call.targets.shape:
        return dict.fromkeys(FAULTS, namespace(call.target_lengths).zeros_like(call.target_lengths))
    labels = call.once(_Labels)
    targets = labels.targets
    blank = targets == call.blank
    found = targets >= call.classes, targets < 0, blank, labels.after(blank[..., :-1] & ~blank[..., 1:])
    return {name: labels.count(flags) for name, flags in zip(FAULTS, found, strict=True)}


def unknown_labels(call: CTCCall) -> dict[str, Array]:
    """Labels that stand for what the vocabulary lacks, and where they stand.

    Parameters
    ----------
    call : CTCCall
        ``targets`` (batch, labels) or (labels,), ``target_lengths`` (batch,), ``unknown``.

    Returns
    -------
    dict
        Columns (batch,), counts of labels within ``target_lengths``: ``unknown_labels``; ``unknown_runs``, how many
        runs of adjacent unknown labels there are; ``unknown_first`` and ``unknown_last``, 1 when the first or the last
        label is unknown. Nothing when ``unknown`` is None or there is no room for a label.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> scores = np.zeros((1, 9, 4))
    >>> call = ctc_call(
    ...     log_probs=scores, targets=[[3, 3, 1, 3]], input_lengths=[9], target_lengths=[4], blank=0, unknown=3
    ... )
    >>> found = unknown_labels(call)
    >>> int(found["unknown_labels"][0]), int(found["unknown_runs"][0]), int(found["unknown_last"][0])
    (3, 2, 1)
    """
    if call.unknown is None or 0 in call.targets.shape:
        return {}
    labels = call.once(_Labels)
    unknown = labels.targets == call.unknown
    first, last = labels.at_ends()
    continued = labels.after(unknown[..., :-1] & unknown[..., 1:])
    return {
        "unknown_labels": labels.count(unknown),
        "unknown_runs": labels.count(unknown & ~continued),
        "unknown_first": labels.count(unknown & first),
        "unknown_last": labels.count(unknown & last),
    }


def removed_labels(call: CTCCall) -> dict[str, Array]:
    """Labels equal to the blank that the framework removed from within a transcript.

    Parameters
    ----------
    call : CTCCall
        ``given_labels`` (batch, labels), ``blank``. Blanks before the first and after the last other label are padding.

    Returns
    -------
    dict
        Columns (batch,): ``removed_labels``, blanks between two labels that stay; ``given_label_count``, how many of
        the given labels are neither negative nor such padding. Nothing when the given labels are not known.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> given = np.asarray([[0, 2, 0, 3, 0, -100]])
    >>> call = ctc_call(
    ...     log_probs=np.zeros((9, 4)), targets=[2, 3], input_lengths=9, target_lengths=2, blank=0, given_labels=given
    ... )
    >>> int(removed_labels(call)["removed_labels"][0])
    1
    """
    if call.given_labels is None or 0 in call.given_labels.shape:
        return {}
    xp = namespace(call.given_labels)
    labels = whole(call.given_labels, call.given_labels)
    kept = xp.astype((labels != call.blank) & (labels >= 0), labels.dtype)
    before = xp.cumulative_sum(kept, axis=1)
    after = before[:, -1:] - before
    removed = (labels == call.blank) & (before > 0) & (after > 0)
    counts = xp.sum(xp.astype(removed, labels.dtype), axis=1)
    return {"removed_labels": counts, "given_label_count": counts + before[:, -1]}


def transcripts(call: CTCCall) -> dict[str, Array]:
    """Whether transcripts are alike, and whether they end in the same label again and again.

    Parameters
    ----------
    call : CTCCall
        ``targets`` (batch, labels), ``target_lengths`` (batch,); or ``given_labels`` (batch, labels), of which those
        count that are neither negative nor the blank.

    Returns
    -------
    dict
        Scalar ``transcript_room``, the width. Columns (batch,): ``fingerprint``, equal for equal transcripts and rarely
        for others; ``last_label``, -1 for an
        empty target; ``tail_run``, how many labels at the end are the last one. Nothing for concatenated targets that
        were not given as rows, without room for a label, or without an utterance.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> scores = np.zeros((1, 9, 4))
    >>> call = ctc_call(log_probs=scores, targets=[[2, 1, 3, 3, 3]], input_lengths=[9], target_lengths=[5], blank=0)
    >>> int(transcripts(call)["tail_run"][0])
    3
    """
    if call.batch == 0:
        return {}
    if call.given_labels is not None and 0 not in call.given_labels.shape:
        targets = whole(call.given_labels, call.given_labels)
        counted = (targets >= 0) & (targets != call.blank)
    elif call.concatenated or 0 in call.targets.shape:
        return {}
    else:
        labels = call.once(_Labels)
        targets, counted = labels.targets, labels.counted
    xp, room = namespace(targets), int(targets.shape[1])
    position = arange(targets, room)[None, :]
    labels = xp.where(counted, targets, -1)
    end = xp.max(xp.where(counted, position, -1), axis=1)
    last = xp.max(xp.where(position == end[:, None], labels, -1), axis=1)
    other = xp.max(xp.where(counted & (targets != last[:, None]), position, -1), axis=1)
    weights = (position * 7919 + 1) % 8191
    return {
        "fingerprint": xp.sum((labels + 1) % 65_536 * weights, axis=1),
        "last_label": last,
        "tail_run": xp.sum(xp.astype(counted & (position > other[:, None]), xp.float32), axis=1),
        "transcript_room": xp.zeros_like(end[0]) + room,
    }
