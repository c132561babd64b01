"""Probes of the lengths. O(batch)."""

from __future__ import annotations

from ctcguard._array import Array
from ctcguard.call import CTCCall


def lengths(call: CTCCall) -> dict[str, Array]:
    """The lengths that the loss was given.

    Parameters
    ----------
    call : CTCCall
        ``input_lengths`` (batch,) in frames after subsampling, ``target_lengths`` (batch,) in labels.

    Returns
    -------
    dict
        Columns ``input_lengths`` and ``target_lengths``, (batch,), unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> call = ctc_call(log_probs=np.zeros((1, 9, 4)), targets=[[1]], input_lengths=[9], target_lengths=[1], blank=0)
    >>> lengths(call)["input_lengths"].tolist()
    [9]
    """
    return {"input_lengths": call.input_lengths, "target_lengths": call.target_lengths}
