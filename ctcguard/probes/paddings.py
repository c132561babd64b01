"""Probes of paddings: how a loss that takes masks instead of lengths (optax) was told where an utterance ends."""

from __future__ import annotations

from math import ceil

from ctcguard._array import Array, arange, beside, namespace, whole
from ctcguard.call import CTCCall
from ctcguard.probes.log_probs import maxima

COMPARED_PAIRS = 512
"""Pairs of neighbouring frames whose change `edge_changes` sorts, about."""


def padding_faults(frame_paddings: Array, label_paddings: Array, labels: Array) -> dict[str, Array]:
    """Paddings that do not stand at the end.

    Parameters
    ----------
    frame_paddings : array, (batch, time)
        1 where a frame is padding, else 0.
    label_paddings : array, (batch, labels)
        1 where a label is padding, else 0.
    labels : array, (batch, labels)
        The labels, padding included.

    Returns
    -------
    dict
        Columns (batch,): ``padded_first_frames`` and ``padded_first_labels``, how many padded items stand before one
        that is not padding (0 when padded at the end, or all padding); ``starts_padded_frames`` and
        ``starts_padded_labels``, 1 when the first item is padding, else 0; ``padded_label_span``, difference between
        the largest and the smallest padded label, 0 without any. A NaN padding counts as none. Zeros without items.

    Examples
    --------
    >>> import numpy as np
    >>> inverted = np.asarray([[1.0, 1.0, 0.0]])
    >>> faults = padding_faults(inverted, np.zeros((1, 2)), np.ones((1, 2)))
    >>> float(faults["padded_first_frames"][0]), float(faults["padded_first_labels"][0])
    (2.0, 0.0)
    """
    frames, starts_frames = _before_items(frame_paddings)
    items, starts_labels = _before_items(label_paddings)
    return {
        "padded_first_frames": frames,
        "padded_first_labels": items,
        "starts_padded_frames": starts_frames,
        "starts_padded_labels": starts_labels,
        "padded_label_span": _span(label_paddings, labels),
    }


def _before_items(paddings: Array) -> tuple[Array, Array]:
    """How many padded items stand before another, and whether the first is one, (batch,)."""
    xp = namespace(paddings)
    padded = paddings > 0.5
    if 0 in paddings.shape:
        none = xp.zeros((paddings.shape[0],), dtype=xp.float32)
        return none, none
    items = xp.astype(~padded, xp.float32)
    place = xp.astype(arange(paddings, paddings.shape[1]) + 1, xp.float32)[None, :]
    up_to_the_last = xp.max(items * place, axis=1)  # no running sum: compilers make many programs of one
    return up_to_the_last - xp.sum(items, axis=1), xp.astype(padded[:, 0], xp.float32)


def _span(paddings: Array, labels: Array) -> Array:
    xp = namespace(paddings)
    if 0 in paddings.shape:
        return xp.zeros((paddings.shape[0],), dtype=xp.float32)
    padded, values = paddings > 0.5, xp.astype(labels, xp.float32)
    limit = xp.full_like(values, float("inf"))
    span = xp.max(xp.where(padded, values, -limit), axis=1) - xp.min(xp.where(padded, values, limit), axis=1)
    return xp.where(span > 0, span, xp.zeros_like(span))


def edge_changes(call: CTCCall) -> dict[str, Array]:
    """How much the scores change from frame to frame before and within the last ``input_lengths`` frames.

    Of frames padded on the left these are the padding and the speech, of a mask in place of the paddings the speech and
    the padding: what went into a model as padding comes out of it with little change.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes), ``input_lengths`` (batch,).

    Returns
    -------
    dict
        Scalars ``leading_change`` and ``trailing_change``, ≥ 0, in the unit of the scores (nats for log-probs): the
        median difference of the largest scores of two neighbouring frames that are both among the first
        ``time - input_length``, or both among the others. Of every k-th pair, about `COMPARED_PAIRS`. Pairs with a
        frame that is not finite are left out; NaN without a pair. Nothing for one frame, or when an axis is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> scores = np.asarray([[[0.5], [0.5], [0.0], [2.0], [4.0]]])
    >>> call = ctc_call(logits=scores, targets=[[0]], input_lengths=[3], target_lengths=[1], blank=0)
    >>> found = edge_changes(call)
    >>> float(found["leading_change"]), float(found["trailing_change"])
    (0.0, 2.0)
    """
    if 0 in call.scores.shape or call.frames < 2:
        return {}
    flat = namespace(call.once(maxima)).reshape(call.once(maxima), (-1,))
    stride = ceil(call.batch * call.frames / COMPARED_PAIRS)
    change = namespace(flat).abs(flat[1::stride] - flat[:-1:stride])
    xp, place = namespace(flat), stride * arange(beside(call.scores), int(change.shape[0]))
    time = place % call.frames
    leading = call.frames - xp.take(whole(place, call.input_lengths), place // call.frames)
    counted = xp.isfinite(change) & (time < call.frames - 1)  # the next frame is that of the next utterance
    return {
        "leading_change": _median(change, counted & (time + 1 < leading)),
        "trailing_change": _median(change, counted & (time >= leading)),
    }


def _median(values: Array, counted: Array) -> Array:
    """The lower median of the values that count; NaN when none does."""
    xp = namespace(values)
    ordered = xp.sort(xp.where(counted, values, float("inf")))
    count = xp.sum(xp.astype(counted, xp.int32))
    middle = xp.where(count > 0, (count - 1) // 2, 0)
    return xp.where(count > 0, xp.take(ordered, xp.reshape(middle, (1,)), axis=0)[0], float("nan"))


def forward_maximum(phi: Array, emit: Array, input_lengths: Array, target_lengths: Array) -> dict[str, Array]:
    """The largest forward log-probability: above 0 when a label is no class, for such a label costs nothing.

    Parameters
    ----------
    phi, emit : array, (time, batch, labels + 1) and (time, batch, labels)
        Forward log-probabilities of ending with the blank after n labels, and with label n, as optax returns them.
    input_lengths, target_lengths : array, (batch,)
        Only frames and labels within these are looked at.

    Returns
    -------
    dict
        Column ``forward_max`` (batch,), nats, at most 0 apart from rounding; -inf without frames, NaN if one is NaN.

    References
    ----------
    Graves et al. 2006, section 4.1: a forward variable is a probability.

    Examples
    --------
    >>> import numpy as np
    >>> phi, emit = np.asarray([[[-1.0, -2.0]]]), np.asarray([[[0.7]]])
    >>> float(forward_maximum(phi, emit, np.asarray([1]), np.asarray([1]))["forward_max"][0])
    0.7
    """
    xp = namespace(phi)
    time = arange(phi, phi.shape[0])[:, None, None] < whole(phi, input_lengths)[None, :, None]
    labels = arange(phi, phi.shape[2])[None, None, :]
    within = whole(phi, target_lengths)[None, :, None]
    lowest = xp.asarray(-float("inf"), dtype=phi.dtype)
    best = xp.max(xp.where(time & (labels <= within), phi, lowest), axis=(0, 2))
    if emit.shape[2]:
        counted = time & (labels[:, :, : emit.shape[2]] < within)
        best = xp.maximum(best, xp.max(xp.where(counted, emit, lowest), axis=(0, 2)))
    return {"forward_max": best}
