"""Probes of the distribution that the loss was given.

One look at the frames of all utterances (`frame_maxima`); everything finer looks at a sample of a thousand frames or
fewer. Both are bounded by values. On the host, what is as small as the sample is numpy's: its functions start fastest.
"""

from __future__ import annotations

from math import ceil
from types import ModuleType
from typing import Any, NamedTuple

from ctcguard._array import (
    Array,
    arange,
    beside,
    blocks,
    highest,
    host_view,
    is_host,
    like,
    lowest,
    namespace,
    narrow_view,
    turned,
    whole,
    wide,
)
from ctcguard.call import CTCCall

SCANNED_VALUES = 2**21
"""Values on the host up to which `frame_maxima` reads every frame: more would cost more than a guard may."""
SAMPLED_FRAMES = 1024
"""Frames read by `normalisation` and `greedy`, at most …"""
SAMPLED_VALUES = 65_536
"""… and values: wide vocabularies cost no more than narrow ones."""
EVIDENCE_VALUES = 8_192
"""Values read to tell a softmax over the wrong axis, or one in half precision."""
ROUNDING = 1e-6
"""Of a share: how much two sums of the same values may differ, by the order in which they were added."""
BLOCK_VALUES = 16_384
"""Values of the sample that something is worked out of at a time: what is in between is small beside the sample."""


class _Sample(NamedTuple):
    """Every k-th frame of every utterance, or of every k-th one: the one copy that is made of scores.

    Attributes
    ----------
    values : array, (classes, frames)
        At least float32, so that a sum over classes is exact enough to be judged. The classes come first: numpy is fast
        along long axes only.
    valid : array, (frames,)
        Whether each frame is within ``input_lengths``.
    """

    values: Array
    valid: Array


def _frames(call: CTCCall) -> Array:
    return whole(beside(call.scores), call.input_lengths)


def _valid(call: CTCCall) -> Array:
    """Whether each frame is within ``input_lengths``, (batch, time)."""
    frames = call.once(_frames)
    return arange(frames, call.frames)[None, :] < frames[:, None]


def _sample(call: CTCCall) -> _Sample:
    step = ceil(call.batch * call.classes / SAMPLED_VALUES)
    most = min(SAMPLED_FRAMES, SAMPLED_VALUES // call.classes) // ceil(call.batch / step)
    stride = ceil(call.frames / max(1, most))
    values = turned(wide(narrow_view(call.scores)[::step, ::stride, :]))
    valid = call.once(_valid)[::step, ::stride]
    return _Sample(values, namespace(valid).reshape(valid, (-1,)))


def _peaks(call: CTCCall) -> Array:
    """The largest value of each sampled frame, (frames,)."""
    return highest(call.once(_sample).values, axis=0)


def maxima(call: CTCCall) -> Array:
    """The largest score of every frame.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes), at least one class.

    Returns
    -------
    array, (batch, time)
        In the unit of the scores, float32 (float64 of float64); NaN where a score of the frame is NaN. An array of
        numpy for scores on the host.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> scores = np.asarray([[[0.0, 1.0], [3.0, 2.0]]])
    >>> maxima(ctc_call(logits=scores, targets=[[1]], input_lengths=[2], target_lengths=[1], blank=0)).tolist()
    [[1.0, 3.0]]
    """
    return _largest(call.scores)


def _largest(scores: Array) -> Array:
    return host_view(wide(highest(scores, axis=2)))


def frame_maxima(call: CTCCall, every_frame: bool = False) -> dict[str, Array]:
    """The largest score of every frame: the one pass over all of ``scores``.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes), ``input_lengths`` (batch,).
    every_frame : bool
        Whether to read each frame however many there are. By default, of scores on the host every k-th frame is read
        when there are more than `SCANNED_VALUES` values.

    Returns
    -------
    dict
        Columns (batch,): ``score_max``, largest score of a valid frame (NaN if one is NaN, -inf without valid frames);
        ``frame_max_sum``, sum over valid frames of the frame's largest score, nats, ≤ 0 for log-probs (of a part of the
        frames: for log-probs an upper bound of that of all); ``non_finite_frames`` and ``non_finite_padding_frames``,
        how many frames within and beyond ``input_lengths`` hold a NaN, a +inf or nothing but -inf. Of the frames that
        are read. Nothing when an axis is empty.

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
    many = ceil(call.batch * call.frames * call.classes / SCANNED_VALUES)
    stride = 1 if every_frame or not is_host(call.scores) else many
    found = call.once(maxima) if stride == 1 else _largest(call.scores[:, ::stride, :])
    return _of_maxima(found, call.once(_valid)[:, ::stride])


def _of_maxima(found: Array, valid: Array) -> dict[str, Array]:
    xp = namespace(found)
    bad = ~xp.isfinite(found)
    bad_inside = _count(bad & valid, found.dtype, axis=1)
    return {
        "score_max": highest(xp.where(valid, found, -float("inf")), axis=1),
        "frame_max_sum": xp.sum(xp.where(valid, found, 0.0), axis=1),
        "non_finite_frames": bad_inside,
        "non_finite_padding_frames": _count(bad, found.dtype, axis=1) - bad_inside,
    }


def _count(holds: Array, dtype: Any, axis: int) -> Array:
    """Of how many values it holds, along one axis."""
    xp = namespace(holds)
    return xp.sum(xp.astype(holds, dtype), axis=axis)


def normalisation(call: CTCCall) -> dict[str, Array]:
    """Whether sampled valid frames are distributions.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes). Every k-th frame is read, from frame 0 on, k so that at most 1,024 and about
        65,536 values are; with very wide vocabularies every k-th utterance.

    Returns
    -------
    dict
        Scalars: ``logsumexp_min`` and ``logsumexp_max``, over classes, in nats (both 0 for log-probs; a padded frame
        counts as 0); ``sample_max``; ``minus_inf_fraction`` in [0, 1].
        NaN in a sampled valid frame makes the first three NaN. Without valid frames: 0, 0, -inf, 0. Nothing when an
        axis is empty.

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
    values, valid = call.once(_sample)
    xp, peak = namespace(values), call.once(_peaks)
    parts = blocks(values, BLOCK_VALUES)
    logsumexp = xp.where(valid, xp.concat([_logsumexp(values[:, part], peak[part], 0) for part in parts]), 0.0)
    infinite = xp.concat([_count(values[:, part] == -float("inf"), values.dtype, axis=0) for part in parts])
    count = xp.sum(xp.astype(valid, values.dtype)) * call.classes
    return {
        "logsumexp_min": lowest(logsumexp),
        "logsumexp_max": highest(logsumexp),
        "sample_max": highest(xp.where(valid, peak, -float("inf"))),
        "minus_inf_fraction": xp.sum(xp.where(valid, infinite, 0.0)) / xp.where(count > 0, count, 1.0),
    }


def probabilities(call: CTCCall) -> dict[str, Array]:
    """Whether sampled valid frames are probabilities: evidence, not a symptom.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes); the frames that `normalisation` reads.

    Returns
    -------
    dict
        Scalars: ``row_sum_error``, largest distance of a sum over classes from 1 (0 for probabilities);
        ``sample_min``. NaN in a sampled valid frame makes both NaN. Without valid frames: 0, inf. Nothing when an axis
        is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> scores = np.full((1, 3, 4), 0.25)
    >>> call = ctc_call(logits=scores, targets=[[1]], input_lengths=[3], target_lengths=[1], blank=0)
    >>> float(probabilities(call)["row_sum_error"]), float(probabilities(call)["sample_min"])
    (0.0, 0.25)
    """
    if 0 in call.scores.shape:
        return {}
    values, valid = call.once(_sample)
    xp = namespace(values)
    return {
        "row_sum_error": highest(xp.where(valid, xp.abs(xp.sum(values, axis=0) - 1), 0.0)),
        "sample_min": lowest(xp.where(valid, lowest(values, axis=0), float("inf"))),
    }


def precision(call: CTCCall) -> dict[str, Array]:
    """Whether sampled scores fit into half precision: then a softmax ran in it, although its result was cast up.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes); of the frames that `normalisation` reads, about 8,192 values.

    Returns
    -------
    dict
        Scalars ``fits_bfloat16`` and ``fits_float16``, 1 when every finite value of a valid frame has no more
        significant bits than these have; 1 without valid frames. Nothing when an axis is empty.

    References
    ----------
    T. J. Dekker 1971 (splitting a float by a multiplication).

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> scores = np.full((1, 3, 4), -1.0 - 2**-9)
    >>> call = ctc_call(log_probs=scores, targets=[[1]], input_lengths=[3], target_lengths=[1], blank=0)
    >>> float(precision(call)["fits_bfloat16"]), float(precision(call)["fits_float16"])
    (0.0, 1.0)
    """
    if 0 in call.scores.shape:
        return {}
    values, valid = call.once(_sample)
    stride = ceil(values.shape[1] * call.classes / EVIDENCE_VALUES)
    xp, values = namespace(values), values[:, ::stride]
    counted = xp.where(valid[::stride] & xp.isfinite(values), values, 0.0)
    return {"fits_bfloat16": _fits(xp, counted, 8), "fits_float16": _fits(xp, counted, 11)}


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
    values, valid = call.once(_sample)
    xp = namespace(values)
    peak, frames = call.once(_peaks), xp.astype(valid, values.dtype)
    parts = blocks(values, BLOCK_VALUES)
    wins = sum(_wins(values[:, part], peak[part], frames[part]) for part in parts)
    total = xp.sum(frames)
    share = wins / xp.where(total > 0, total, 1.0)
    blank, top = arange(share, call.classes) == call.blank, xp.max(share)
    return {
        "blank_fraction": xp.sum(xp.where(blank, share, 0.0)),
        "top_class": xp.argmax(xp.astype(share >= top * (1 - ROUNDING), share.dtype)),
        "top_fraction": top,
    }


def _wins(values: Array, peak: Array, frames: Array) -> Array:
    """In how many of the frames each class has the largest value, (classes,)."""
    xp = namespace(values)
    winners = xp.astype(values == peak, values.dtype)
    ties = xp.sum(winners, axis=0)
    return xp.matmul(winners, frames / xp.where(ties > 0, ties, 1.0))


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
    xp, reference = namespace(call.scores), beside(call.scores)
    scores = call.scores[:, :, :: ceil(call.classes / 4)]
    frames = namespace(reference).clip(call.once(_frames), 0, call.frames)
    last = namespace(reference).clip(frames - 1, 0, None)[:, None, None]
    index = xp.broadcast_to(like(call.scores, last), (call.batch, 1, int(scores.shape[2])))
    same = host_view(xp.all(scores == xp.take_along_axis(scores, index, axis=1), axis=2))
    xp = namespace(same)
    time = xp.astype(arange(reference, call.frames), xp.int32)[None, :]
    return {"tail_frames": frames - 1 - xp.max(xp.where(call.once(_valid) & ~same, time, -1), axis=1)}


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
    lines = max(1, EVIDENCE_VALUES // call.frames)
    batch_step = ceil(call.batch / lines)
    class_step = ceil(call.classes * ceil(call.batch / batch_step) / lines)
    time_lines = wide(call.scores[::batch_step, :, ::class_step])
    frame_step = ceil(call.batch * call.frames / EVIDENCE_VALUES)
    class_step = ceil(call.batch * ceil(call.frames / frame_step) * call.classes / EVIDENCE_VALUES)
    batch_lines = wide(call.scores[:, ::frame_step, ::class_step])
    return {"logsumexp_time_abs_max": _farthest(time_lines, 1), "logsumexp_batch_abs_max": _farthest(batch_lines, 0)}


def _farthest(values: Array, axis: int) -> Array:
    """The largest magnitude of a logsumexp over one axis, nats."""
    return highest(namespace(values).abs(_logsumexp(values, highest(values, axis=axis), axis)))


def _logsumexp(values: Array, peak: Array, axis: int) -> Array:
    """Over one axis, in nats; -inf where all are, inf where one is, NaN where one is. ``peak`` is the highest value."""
    xp = namespace(values)
    base = xp.where(xp.isfinite(peak), peak, 0.0)
    return base + xp.log(xp.sum(xp.exp(values - xp.expand_dims(base, axis=axis)), axis=axis))
