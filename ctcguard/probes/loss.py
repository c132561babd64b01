"""Probes of what the loss returned, and of what it can return at most. O(batch × time)."""

from __future__ import annotations

from math import ceil

from ctcguard._array import Array, arange, beside, host_view, like, namespace, whole, wide
from ctcguard.call import CTCCall


def losses(call: CTCCall) -> dict[str, Array]:
    """Per-utterance losses, in nats, before any reduction.

    Parameters
    ----------
    call : CTCCall
        ``losses`` (batch,) or None.

    Returns
    -------
    dict
        Column ``losses`` (batch,), unchanged (NaN and infinities too); nothing when the losses are not known.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> call = ctc_call(
    ...     log_probs=np.zeros((9, 4)), targets=[1], input_lengths=9, target_lengths=1, blank=0, losses=np.ones(1)
    ... )
    >>> losses(call)["losses"].tolist()
    [1.0]
    """
    return {} if call.losses is None else {"losses": host_view(call.losses)}


def alignment_cost(call: CTCCall) -> dict[str, Array]:
    """The cost of one valid alignment: no right CTC loss is above it.

    The alignment puts label *u* on frame *2u* and the blank on all others: valid, whatever repeats there are. It
    needs ``input_length ≥ 2 × target_length - 1``; an utterance with fewer frames gets ``inf`` (no bound).

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes) that are log-probs; padded ``targets`` or concatenated ones.

    Returns
    -------
    dict
        Column ``alignment_cost`` (batch,), nats, in [0, inf] for normalised log-probs. NaN where a log-prob on the
        alignment is NaN. Nothing for logits, for no frames, no labels or no classes.

    References
    ----------
    Graves et al. 2006, eq. 3: the loss is -ln of a sum over alignments, so it is at most -ln of any one of them.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> call = ctc_call(
    ...     log_probs=np.log(np.full((3, 4), 0.25)), targets=[1, 2], input_lengths=3, target_lengths=2, blank=0
    ... )
    >>> round(float(alignment_cost(call)["alignment_cost"][0]), 3)
    4.159
    """
    if not has_alignments(call):
        return {}
    frames, counts, targets = (
        whole(beside(call.scores), values) for values in (call.input_lengths, call.target_lengths, call.targets)
    )
    xp, room = namespace(frames), int(targets.shape[-1])
    slots = min(room, ceil(call.frames / 2))  # the labels that have a frame, on frames 0, 2, 4 …
    slot = arange(frames, slots)[None, :]
    if call.concatenated:
        index = xp.clip(slot + (xp.cumulative_sum(counts) - counts)[:, None], 0, room - 1)
        labels = xp.reshape(xp.take(targets, xp.reshape(index, (-1,))), index.shape)
    else:
        labels = targets[:, :slots]
    labels = like(call.scores, xp.clip(labels, 0, call.classes - 1)[:, :, None])
    said = namespace(call.scores).take_along_axis(call.scores[:, : 2 * slots : 2, :], labels, axis=2)[:, :, 0]
    silent = call.scores[:, :, min(max(call.blank, 0), call.classes - 1)]
    said, silent = (host_view(wide(scores)) for scores in (said, silent))
    time = arange(frames, call.frames)[None, :]
    has_label = (time % 2 == 0) & (time < 2 * counts[:, None])
    inside = (slot < counts[:, None]) & (2 * slot < frames[:, None])
    xp = namespace(said)
    cost = -xp.sum(xp.where(inside, said, 0.0), axis=1)
    cost = cost - xp.sum(xp.where((time < frames[:, None]) & ~has_label, silent, 0.0), axis=1)
    return {"alignment_cost": xp.where(frames >= 2 * counts - 1, cost, float("inf"))}


def has_alignments(call: CTCCall) -> bool:
    """Whether the cost of an alignment can be read off.

    Parameters
    ----------
    call : CTCCall
        Only shapes are looked at.

    Returns
    -------
    bool
        True for scores that are log-probs, with no empty axis, and room for a label.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> scores = np.zeros((9, 4))
    >>> has_alignments(ctc_call(logits=scores, targets=[1], input_lengths=9, target_lengths=1, blank=0))
    False
    """
    return call.expects == "log_probs" and 0 not in call.scores.shape and call.targets.shape[-1] > 0
