"""Probes of the gradients, just before an optimizer uses them."""

from __future__ import annotations

from collections.abc import Sequence

from ctcguard._array import Array, abs_max


def gradient_abs_max(gradients: Sequence[Array]) -> Array:
    """The largest magnitude in each gradient.

    Parameters
    ----------
    gradients : sequence of arrays, any shapes
        At least one, and none of them empty.

    Returns
    -------
    array, (gradients,)
        float32, ≥ 0; NaN when any element is NaN, inf when any is infinite.

    Raises
    ------
    IndexError
        When there is no gradient at all.
    ValueError, RuntimeError
        When one is empty (as the array library says it).

    Examples
    --------
    >>> import numpy as np
    >>> gradient_abs_max([np.asarray([1.0, -3.0]), np.asarray([[2.0]])]).tolist()
    [3.0, 2.0]
    """
    return abs_max(gradients)
