"""What one process can read of an array that is spread over several."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

ABSENT = -1


def readable_part(array: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """The values of an array on the host; where they are on devices of other processes, -1.

    Parameters
    ----------
    array : array
        One of whole numbers, if it is spread over several processes.
    """
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    values = np.full(array.shape, ABSENT, array.dtype)
    for shard in array.addressable_shards:
        values[shard.index] = np.asarray(shard.data)
    return values
