"""Probes of the distribution that the loss was given.

One pass over all of ``scores`` (`frame_maxima`); everything finer looks at a sample of frames, bounded by values.
"""

from __future__ import annotations

from math import ceil
from types import ModuleType

from ctcguard._array import Array, arange, highest, lowest, namespace, whole
from ctcguard.call import CTCCall

SAMPLED_VALUES = 65_536
"""Values read by `normalisation`: wide vocabularies cost no more than narrow ones."""
EVIDENCE_VALUES = 8_192
"""Values read to tell a softmax over the wrong axis."""


def _valid(call: CTCCall) -> Array:
    """Whether each frame is within ``input_lengths``, (batch, time), in the library of the scores."""
    return arange(call.scores, call.frames)[None, :] < whole(call.scores, call.input_lengths)[:, None]


def _wide(xp: ModuleType, values: Array) -> Array:
    """At least float32, so that a sum over classes is exact enough to be judged."""
    return values if values.dtype == xp.float64 else xp.astype(values, xp.float32, copy=False)


def _sample(call: CTCCall) -> tuple[Array, Array]:
    """Every k-th frame, of every k-th utterance with very wide vocabularies, and which of these frames are valid."""
    utterances = ceil(call.batch * call.classes / SAMPLED_VALUES)
    stride = ceil(call.batch * call.frames * call.classes / (SAMPLED_VALUES * utterances))
    scores = _wide(namespace(call.scores), call.scores[::utterances, ::stride, :])
    return scores, _valid(call)[::utterances, ::stride]


def frame_maxima(call: CTCCall) -> dict[str, Array]:
    """The largest score of every frame: the one pass over all of ``scores``.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes), ``input_lengths`` (batch,).

    Returns
    -------
    dict
        Columns (batch,): ``score_max``, largest score of a valid frame (NaN if one is NaN, -inf without valid frames);
        ``frame_max_sum``, sum over valid frames of the frame's largest score, nats, ≤ 0 for log-probs;
        ``non_finite_frames`` and ``non_finite_padding_frames``, how many frames within and beyond ``input_lengths``
        hold a NaN, a +inf or nothing but -inf. Nothing when an axis is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> scores = np.log(np.full((1, 3, 4), 0.25))
    >>> scores[0, 1, 2] = np.nan
    >>> call = ctc_call(log_probs=scores, targets=[[1]], input_lengths=[3], target_lengths=[1], blank=0)
    >>> int(frame_maxima(call)["non_finite_frames"][0])
    1
    """
    if 0 in call.scores.shape:
        return {}
    xp = namespace(call.scores)
    valid = _valid(call)
    maxima = _wide(xp, highest(call.scores, axis=2))
    bad = ~xp.isfinite(maxima)
    nothing = xp.zeros_like(maxima)
    return {
        "score_max": highest(xp.where(valid, maxima, nothing - float("inf")), axis=1),
        "frame_max_sum": xp.sum(xp.where(valid, maxima, nothing), axis=1),
        "non_finite_frames": xp.sum(xp.astype(bad & valid, maxima.dtype), axis=1),
        "non_finite_padding_frames": xp.sum(xp.astype(bad & ~valid, maxima.dtype), axis=1),
    }


def normalisation(call: CTCCall) -> dict[str, Array]:
    """Whether sampled valid frames are distributions, and if not, what else they could be.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes). Every k-th frame is read, from frame 0 on, k so that about 65,536 values
        are; with very wide vocabularies every k-th utterance.

    Returns
    -------
    dict
        Scalars: ``logsumexp_min`` and ``logsumexp_max``, over classes, in nats (both 0 for log-probs; a padded frame
        counts as 0); ``row_sum_error``, largest distance of a sum over classes from 1 (0 for probabilities);
        ``sample_min`` and ``sample_max``; ``minus_inf_fraction`` in [0, 1]; ``fits_bfloat16`` and ``fits_float16``, 1
        when every sampled value has no more significant bits than these have, so that a softmax in half precision is
        known although its result was cast up.
        NaN in a sampled valid frame makes the first five NaN. Without valid frames: 0, 0, 0, inf, -inf, 0, 1, 1.
        Nothing when an axis is empty.

    References
    ----------
    T. J. Dekker 1971 (splitting a float by a multiplication), for the representability test.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> call = ctc_call(log_probs=np.zeros((1, 3, 4)), targets=[[1]], input_lengths=[3], target_lengths=[1], blank=0)
    >>> round(float(normalisation(call)["logsumexp_max"]), 3)
    1.386
    """
    if 0 in call.scores.shape:
        return {}
    xp = namespace(call.scores)
    scores, valid = _sample(call)
    peak = highest(scores, axis=2)
    logsumexp = _logsumexp(xp, scores, 2)
    zero = xp.zeros_like(peak)
    row_sum = xp.sum(scores, axis=2) - 1
    inside = valid[:, :, None]
    is_minus_inf = inside & (scores == -float("inf"))
    count = xp.sum(xp.astype(valid, scores.dtype)) * call.classes
    counted = xp.where(inside & xp.isfinite(scores), scores, xp.zeros_like(scores))
    return {
        "logsumexp_min": lowest(xp.where(valid, logsumexp, zero)),
        "logsumexp_max": highest(xp.where(valid, logsumexp, zero)),
        "row_sum_error": highest(xp.where(valid, xp.abs(row_sum), zero)),
        "sample_min": lowest(xp.where(inside, scores, xp.full_like(scores, float("inf")))),
        "sample_max": highest(xp.where(valid, peak, zero - float("inf"))),
        "minus_inf_fraction": xp.sum(xp.astype(is_minus_inf, scores.dtype)) / xp.where(count > 0, count, count + 1),
        "fits_bfloat16": _fits(xp, counted, 8),
        "fits_float16": _fits(xp, counted, 11),
    }


def _fits(xp: ModuleType, values: Array, bits: int) -> Array:
    """1.0 when every value has at most that many significant bits, by Dekker's splitting, else 0.0."""
    total = 53 if values.dtype == xp.float64 else 24
    scaled = values * float(2 ** (total - bits) + 1)
    high = scaled - (scaled - values)
    return xp.astype(xp.all(high == values), values.dtype)


def greedy(call: CTCCall) -> dict[str, Array]:
    """Which symbols win: the start of a greedy decoding, over sampled valid frames.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes), log-probs or logits; the frames that `normalisation` reads.

    Returns
    -------
    dict
        Scalars: ``blank_fraction``, share of the frames in [0, 1] whose largest score is the blank's; ``top_class``,
        the index of the class that wins most frames (the lowest of several), and ``top_fraction``, its share. Classes
        that tie share a frame. Without valid frames both shares are 0; with NaN in a frame nobody wins it. Nothing
        when an axis is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> scores = np.eye(4)[[[0, 0, 3, 0]]]
    >>> found = greedy(ctc_call(logits=scores, targets=[[1]], input_lengths=[4], target_lengths=[1], blank=0))
    >>> float(found["blank_fraction"]), int(found["top_class"])
    (0.75, 0)
    """
    if 0 in call.scores.shape:
        return {}
    xp = namespace(call.scores)
    scores, valid = _sample(call)
    winners = xp.astype(scores == highest(scores, axis=2, keepdims=True), scores.dtype)
    ties = xp.sum(winners, axis=2, keepdims=True)
    frames = xp.astype(valid, scores.dtype)
    wins = xp.sum(winners * (frames[:, :, None] / xp.where(ties > 0, ties, ties + 1)), axis=(0, 1))
    total = xp.sum(frames)
    share = wins / xp.where(total > 0, total, total + 1)
    blank = arange(call.scores, call.classes) == call.blank
    return {
        "blank_fraction": xp.sum(xp.where(blank, share, xp.zeros_like(share))),
        "top_class": xp.argmax(share),
        "top_fraction": xp.max(share),
    }


def constant_tails(call: CTCCall) -> dict[str, Array]:
    """How many valid frames at the end of each utterance are all the same: padding that went through the model.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes); four classes are read.

    Returns
    -------
    dict
        Column ``tail_frames`` (batch,): valid frames, the last one included, that equal the last one exactly in the
        four classes; 1 when none does, 0 without valid frames or when the last one holds a NaN. Nothing when an axis
        is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> scores = np.asarray([[[0.0, 1.0], [2.0, 0.0], [0.5, 0.5], [0.5, 0.5]]])
    >>> call = ctc_call(logits=scores, targets=[[1]], input_lengths=[4], target_lengths=[1], blank=0)
    >>> int(constant_tails(call)["tail_frames"][0])
    2
    """
    if 0 in call.scores.shape:
        return {}
    xp = namespace(call.scores)
    scores = call.scores[:, :, :: ceil(call.classes / 4)]
    frames = xp.clip(whole(call.scores, call.input_lengths), 0, call.frames)
    index = xp.broadcast_to(xp.clip(frames - 1, 0, None)[:, None, None], (call.batch, 1, int(scores.shape[2])))
    last = xp.take_along_axis(scores, index, axis=1)
    time = arange(call.scores, call.frames)[None, :]
    differs = _valid(call) & ~xp.all(scores == last, axis=2)
    return {"tail_frames": frames - 1 - xp.max(xp.where(differs, time, -xp.ones_like(time)), axis=1)}


def other_axes(call: CTCCall) -> dict[str, Array]:
    """Whether a softmax ran over time or over the batch instead of the classes: evidence, not a symptom.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes); about 8,192 values are read, padded frames too, for a softmax over the wrong
        axis saw those as well.

    Returns
    -------
    dict
        Scalars ``logsumexp_time_abs_max`` and ``logsumexp_batch_abs_max``, nats: 0 when the scores are normalised over
        that axis. NaN in gives NaN. Nothing when an axis is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> over_time = np.log(np.full((1, 4, 3), 0.25))
    >>> call = ctc_call(log_probs=over_time, targets=[[1]], input_lengths=[4], target_lengths=[1], blank=0)
    >>> round(float(other_axes(call)["logsumexp_time_abs_max"]), 6)
    0.0
    """
    if 0 in call.scores.shape:
        return {}
    xp = namespace(call.scores)
    lines = max(1, EVIDENCE_VALUES // call.frames)
    batch_step = ceil(call.batch / lines)
    class_step = ceil(call.classes * ceil(call.batch / batch_step) / lines)
    time_lines = _wide(xp, call.scores[::batch_step, :, ::class_step])
    frame_step = ceil(call.batch * call.frames / EVIDENCE_VALUES)
    class_step = ceil(call.batch * ceil(call.frames / frame_step) * call.classes / EVIDENCE_VALUES)
    batch_lines = _wide(xp, call.scores[:, ::frame_step, ::class_step])
    return {
        "logsumexp_time_abs_max": highest(xp.abs(_logsumexp(xp, time_lines, 1))),
        "logsumexp_batch_abs_max": highest(xp.abs(_logsumexp(xp, batch_lines, 0))),
    }


def _logsumexp(xp: ModuleType, values: Array, axis: int) -> Array:
    """Over one axis, in nats; -inf where all are, inf where one is, NaN where one is."""
    peak = highest(values, axis=axis, keepdims=True)
    base = xp.where(xp.isfinite(peak), peak, xp.zeros_like(peak))
    return xp.squeeze(base + xp.log(xp.sum(xp.exp(values - base), axis=axis, keepdims=True)), axis=axis)
