"""Probes of the model itself: how the outputs of two passes differ, frame by frame."""

from __future__ import annotations

from ctcguard._array import Array, arange, namespace, quiet, whole

ROUNDING = {"float32": 1e-3, "tensorfloat32": 2e-2, "float16": 6e-2, "bfloat16": 0.4}
"""By precision: the part of the spread of a model's outputs that rounding may change in kernels for another shape."""


def frame_changes(before: Array, after: Array, valid_frames: Array) -> Array:
    """The largest difference between two outputs in every frame.

    Parameters
    ----------
    before, after : array, (batch, time, values)
        Outputs for the same utterances in the same order. The time axes may differ in length; what only one of them
        has is not compared.
    valid_frames : array, (batch,)
        Frames that are compared, from the first one on.

    Returns
    -------
    array, (batch, time)
        ≥ 0, in the unit of the outputs; 0 in frames that are not compared and where both are the same infinity; NaN
        where one of them is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> before = np.zeros((1, 3, 2))
    >>> frame_changes(before, before + 0.5, np.asarray([2])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    xp = namespace(before, after)
    frames = min(int(before.shape[1]), int(after.shape[1]))
    before, after = (xp.astype(values[:, :frames, :], xp.float32, copy=False) for values in (before, after))
    with quiet():
        differences = xp.where(before == after, xp.zeros_like(before), xp.abs(after - before))
    return xp.where(_valid(before, valid_frames), xp.max(differences, axis=2), 0.0)


def spread(scores: Array, valid_frames: Array) -> tuple[Array, Array]:
    """How far outputs lie apart: among all values, and among the frames of each class.

    Parameters
    ----------
    scores : array, (batch, time, values)
        The output of a model.
    valid_frames : array, (batch,)
        Frames that count, from the first one on.

    Returns
    -------
    whole : array, ()
        Standard deviation of all finite values, ≥ 0.
    over_frames : array, ()
        Root mean square of what they differ by from the mean of their class; 0 when every frame is the same.

    Examples
    --------
    >>> import numpy as np
    >>> whole, over_frames = spread(np.asarray([[[0.0, 4.0], [0.0, 4.0]]]), np.asarray([2]))
    >>> float(whole), float(over_frames)
    (2.0, 0.0)
    """
    xp = namespace(scores)
    scores = xp.astype(scores, xp.float32, copy=False)
    counts = xp.isfinite(scores) & _valid(scores, valid_frames)[:, :, None]
    values = xp.where(counts, scores, xp.zeros_like(scores))
    return _deviation(values, counts, (0, 1, 2)), _deviation(values, counts, (0, 1))


def _deviation(values: Array, counts: Array, axes: tuple[int, ...]) -> Array:
    """Root mean square of what the values that count differ by from their mean over some axes."""
    xp = namespace(values)
    weights = xp.astype(counts, xp.float32)
    sizes, total = xp.sum(weights, axis=axes, keepdims=True), xp.sum(weights)
    means = xp.sum(values, axis=axes, keepdims=True) / xp.where(sizes > 0, sizes, xp.ones_like(sizes))
    squares = xp.where(counts, (values - means) ** 2, xp.zeros_like(values))
    return xp.sqrt(xp.sum(squares) / xp.where(total > 0, total, xp.ones_like(total)))


def _valid(scores: Array, valid_frames: Array) -> Array:
    """Which frames count, (batch, time)."""
    return arange(scores, int(scores.shape[1]))[None, :] < whole(scores, valid_frames)[:, None]
