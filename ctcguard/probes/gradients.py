"""Probes of the gradients, just before an optimizer uses them."""

from __future__ import annotations

from collections.abc import Sequence

from ctcguard._array import Array, abs_max


def gradient_abs_max(gradients: Sequence[Array]) -> Array:
    """The largest magnitude of any gradient.

    Parameters
    ----------
    gradients : sequence of arrays, any shapes
        At least one that is not empty; empty ones are passed over.

    Returns
    -------
    array, ()
        ≥ 0; NaN when any element is NaN, inf when any is infinite.

    Raises
    ------
    IndexError
        When there is no element at all.

    Examples
    --------
    >>> import numpy as np
    >>> float(gradient_abs_max([np.asarray([1.0, -3.0]), np.asarray([2.0])]))
    3.0
    """
    return abs_max([gradient for gradient in gradients if 0 not in gradient.shape])
