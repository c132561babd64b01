"""Probes of what the loss returned, and of what it can return at most. O(batch × time)."""

from __future__ import annotations

from ctcguard._array import Array, arange, namespace, whole
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
    return {} if call.losses is None else {"losses": call.losses}


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
    if call.expects != "log_probs" or 0 in call.scores.shape or call.targets.shape[-1] == 0:
        return {}
    xp = namespace(call.scores)
    frames, counts, targets = (
        whole(call.scores, values) for values in (call.input_lengths, call.target_lengths, call.targets)
    )
    time = arange(call.scores, call.frames)[None, :]
    slot = xp.broadcast_to(time // 2, (call.batch, call.frames))
    has_label = (time % 2 == 0) & (slot < counts[:, None])
    if call.concatenated:
        first = xp.cumulative_sum(counts) - counts
        index = xp.clip(slot + first[:, None], 0, call.targets.shape[-1] - 1)
        label = xp.reshape(xp.take(targets, xp.reshape(index, (-1,))), index.shape)
    else:
        label = xp.take_along_axis(targets, xp.clip(slot, 0, call.targets.shape[-1] - 1), axis=1)
    path = xp.clip(xp.where(has_label, label, xp.full_like(label, call.blank)), 0, call.classes - 1)
    scores = xp.take_along_axis(call.scores, path[:, :, None], axis=2)[:, :, 0]
    scores = xp.astype(scores, xp.float32, copy=False) if scores.dtype != xp.float64 else scores
    cost = -xp.sum(xp.where(time < frames[:, None], scores, xp.zeros_like(scores)), axis=1)
    return {"alignment_cost": xp.where(frames >= 2 * counts - 1, cost, xp.full_like(cost, float("inf")))}
