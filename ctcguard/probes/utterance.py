"""One utterance whole: what an exact loss can be computed of on the host, copied rarely."""

from __future__ import annotations

from ctcguard._array import Array, arange, namespace, whole
from ctcguard.call import CTCCall


def one_utterance(call: CTCCall, index: int = 0) -> dict[str, Array]:
    """The log-probs of the blank and of the labels of one utterance: all that its loss depends on.

    Parameters
    ----------
    call : CTCCall
        ``scores`` (batch, time, classes), log-probs or logits; padded or concatenated ``targets``; ``losses``.
    index : int
        Which utterance, 0 … batch - 1.

    Returns
    -------
    dict
        Blocks ``exact_log_probs`` (time, 1 + room for labels), nats, first the blank's, then that of each label in
        order (of a label that is no class: that of the nearest one); ``exact_end_log_probs`` (time, 2), those of the
        first and of the last class, where a blank usually is; ``exact_labels`` (1, room for labels). Scalars
        ``exact_frames`` and ``exact_label_count``, the lengths; ``exact_index``; ``exact_loss``, what the loss returned
        for it. Logits are normalised first. Nothing when an axis is empty or the losses are not known.

    Examples
    --------
    >>> import numpy as np
    >>> from ctcguard.call import ctc_call
    >>> scores = np.log(np.full((1, 3, 4), 0.25))
    >>> found = one_utterance(
    ...     ctc_call(
    ...         log_probs=scores, targets=[[1, 2]], input_lengths=[3], target_lengths=[2], blank=0, losses=np.ones(1)
    ...     )
    ... )
    >>> found["exact_log_probs"].shape, found["exact_labels"].tolist()
    ((3, 3), [[1, 2]])
    """
    if 0 in call.scores.shape or call.targets.shape[-1] == 0 or call.losses is None:
        return {}
    xp = namespace(call.scores)
    scores = call.scores[index, :, :]
    scores = scores if scores.dtype == xp.float64 else xp.astype(scores, xp.float32, copy=False)
    if call.expects == "logits":
        peak = xp.max(scores, axis=1, keepdims=True)
        scores = scores - peak - xp.log(xp.sum(xp.exp(scores - peak), axis=1, keepdims=True))
    counts, targets = whole(call.scores, call.target_lengths), whole(call.scores, call.targets)
    if call.concatenated:
        room = targets.shape[0]
        position = arange(call.scores, room) + (xp.sum(counts[:index]) if index else 0)
        labels = xp.take(targets, xp.clip(position, 0, room - 1))
    else:
        labels = targets[index, :]
    columns = xp.concat([xp.full_like(labels[:1], call.blank), labels])
    return {
        "exact_log_probs": xp.take(scores, xp.clip(columns, 0, call.classes - 1), axis=1),
        "exact_end_log_probs": xp.take(scores, arange(call.scores, 2) * (call.classes - 1), axis=1),
        "exact_labels": labels[None, :],
        "exact_frames": whole(call.scores, call.input_lengths)[index],
        "exact_label_count": counts[index],
        "exact_index": xp.full_like(counts[0], index),
        "exact_loss": call.losses[index],
    }
