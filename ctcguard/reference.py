"""CTC itself, in float64 on the host: what a loss must be, which alignment is best, what a uniform output costs.

Slow beside the kernels of the frameworks and exact beside them: for one utterance now and then, not for every call.
"""

from __future__ import annotations

from math import inf, lgamma, log
from typing import NamedTuple

import numpy as np

from ctcguard._array import HostArray, quiet


class Alignment(NamedTuple):
    """One alignment of an utterance.

    Attributes
    ----------
    cost : float
        -ln of its probability, in nats.
    path : array of int, (time,)
        The class of each frame, the blank included; empty when there is no alignment.
    """

    cost: float
    path: HostArray


def loss(log_probs: HostArray, targets: HostArray, blank: int, *, repeats_need_blank: bool = True) -> float:
    """The CTC loss of one utterance by the forward algorithm.

    Parameters
    ----------
    log_probs : array, (time, classes)
        Valid frames only, nats. Need not be normalised: the recursion takes them as they are.
    targets : array of int, (labels,)
        Each in 0 … classes - 1; may be empty.
    blank : int
        Index of the blank class.
    repeats_need_blank : bool
        Whether a blank must stand between equal neighbours. CTC says so; with False, the loss of a kernel that
        forgot it.

    Returns
    -------
    float
        Nats. inf when no alignment has a probability above 0 (too few frames, -inf on every one); NaN when a class
        that stands in the target, or the blank, has a NaN. Without frames 0 for an empty target, else inf.

    Raises
    ------
    IndexError
        When a label or the blank is no class.

    References
    ----------
    Graves et al., Connectionist Temporal Classification, ICML 2006: eq. 6 to 8, in the log domain.

    Examples
    --------
    >>> import numpy as np
    >>> log_probs = np.log(np.full((3, 4), 0.25))
    >>> round(loss(log_probs, np.asarray([1, 2]), blank=0), 4)
    2.5494
    >>> loss(log_probs, np.asarray([1, 1, 1]), blank=0)
    inf
    """
    return loss_of_columns(_columns(log_probs, targets, blank), targets, repeats_need_blank=repeats_need_blank)


def loss_of_columns(columns: HostArray, targets: HostArray, *, repeats_need_blank: bool = True) -> float:
    """The same from the log-probs of the blank and of the labels alone: all that the loss depends on.

    Parameters
    ----------
    columns : array, (time, 1 + labels)
        First the blank's log-probs, then those of each label in order; valid frames only, nats.
    targets : array of int, (labels,)
        Needed only to see which neighbours are equal.
    repeats_need_blank : bool
        As for `loss`.

    Returns
    -------
    float
        As for `loss`.

    Examples
    --------
    >>> import numpy as np
    >>> round(loss_of_columns(np.log(np.full((3, 3), 0.25)), np.asarray([1, 2])), 4)
    2.5494
    """
    blank_of, label_of = columns[:, 0], columns[:, 1:]
    needs_blank = _repeats(targets) & repeats_need_blank
    ending_in_blank, ending_in_label = _nothing_read(len(targets))
    with quiet():
        for blank_now, label_now in zip(blank_of, label_of, strict=True):
            # Reached without the current label: where the blank after the label before may be, or the label after it.
            reached = ending_in_blank.copy()
            reached[1:] = np.logaddexp(reached[1:], ending_in_label)
            before = np.where(needs_blank, ending_in_blank[:-1], reached[:-1])
            ending_in_blank = reached + blank_now
            ending_in_label = np.logaddexp(ending_in_label, before) + label_now
        return float(-np.logaddexp.reduce([ending_in_blank[-1], *ending_in_label[-1:]]))


def best_alignment(log_probs: HostArray, targets: HostArray, blank: int) -> Alignment:
    """The most probable alignment, by the Viterbi algorithm.

    Parameters
    ----------
    log_probs : array, (time, classes)
        Valid frames only, nats, no NaN.
    targets : array of int, (labels,)
        Each in 0 … classes - 1; may be empty.
    blank : int
        Index of the blank class.

    Returns
    -------
    Alignment
        Its cost is at least the loss. inf and an empty path when no alignment has a probability above 0. Of equal
        ones, that which reaches later labels later.

    References
    ----------
    Graves et al. 2006, section 4.1, with the sum over paths replaced by the maximum (Viterbi 1967).

    Examples
    --------
    >>> import numpy as np
    >>> log_probs = np.log([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.1, 0.7]])
    >>> best = best_alignment(log_probs, np.asarray([1, 2]), blank=0)
    >>> round(best.cost, 4), best.path.tolist()
    (0.9365, [0, 1, 2])
    """
    columns = _columns(log_probs, targets, blank)
    blank_of, label_of = columns[:, 0], columns[:, 1:]
    frames, labels = label_of.shape
    needs_blank = _repeats(targets)
    ending_in_blank, ending_in_label = _nothing_read(labels)
    skipped, entered = np.zeros((frames, labels + 1), dtype=bool), np.zeros((frames, labels), dtype=bool)
    for t in range(frames):
        reached = ending_in_blank.copy()
        skipped[t, 1:] = ending_in_label > reached[1:]
        reached[1:] = np.maximum(reached[1:], ending_in_label)
        before = np.where(needs_blank, ending_in_blank[:-1], reached[:-1])
        entered[t] = before > ending_in_label
        ending_in_blank = reached + blank_of[t]
        ending_in_label = np.maximum(ending_in_label, before) + label_of[t]
    on_label = bool(labels and ending_in_label[-1] > ending_in_blank[-1])
    cost = -float(ending_in_label[-1] if on_label else ending_in_blank[-1])
    if cost == inf:
        return Alignment(inf, np.zeros(0, dtype=int))
    path, label = np.full(frames, blank), labels - on_label
    for t in range(frames - 1, -1, -1):
        if on_label:
            path[t] = targets[label]
            if not entered[t, label]:
                continue
            on_label = bool(skipped[t, label] and not needs_blank[label])
        else:
            on_label = bool(skipped[t, label])
        label -= on_label
    return Alignment(cost, path)


def uniform_loss(frames: int, classes: int, labels: int, repeats: int = 0) -> float:
    """The CTC loss of an output that gives each class the same probability in each frame: that of a fresh model.

    Parameters
    ----------
    frames : int
        T, valid frames.
    classes : int
        C, the blank included.
    labels : int
        U, the length of the target.
    repeats : int
        r, how many labels are equal to the one before them.

    Returns
    -------
    float
        ``T ln C - ln binom(T + U - r, 2 U)``, nats; inf when ``T < U + r``.

    References
    ----------
    Each alignment has the probability ``C ** -T``. There are ``binom(T + U - r, 2 U)`` of them: lay U labels and the
    r blanks that must stand between equal ones into T frames, with any number of frames for each of the 2 U + 1 states
    (Graves et al. 2006, section 3.1, defines which paths count; the number follows by stars and bars).

    Examples
    --------
    >>> round(uniform_loss(frames=20, classes=4, labels=2), 2)
    18.83
    >>> uniform_loss(frames=3, classes=4, labels=3, repeats=1)
    inf
    """
    if frames < labels + repeats:
        return inf
    n, k = frames + labels - repeats, 2 * labels
    return frames * log(classes) - (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1))


def _columns(log_probs: HostArray, targets: HostArray, blank: int) -> HostArray:
    """The log-probs of the blank and of the labels, (time, 1 + labels)."""
    classes = log_probs.shape[1]
    wanted = np.concatenate([[blank], np.asarray(targets, dtype=int).reshape(-1)])
    if wanted.min() < 0 or wanted.max() >= classes:
        raise IndexError(f"labels and the blank must be in 0 … {classes - 1}, not {wanted.min()} … {wanted.max()}")
    return np.asarray(log_probs, dtype=np.float64)[:, wanted]


def _repeats(targets: HostArray) -> HostArray:
    """Whether each label is equal to the one before it, (labels,)."""
    repeats = np.zeros(len(targets), dtype=bool)
    repeats[1:] = targets[1:] == targets[:-1]
    return repeats


def _nothing_read(labels: int) -> tuple[HostArray, HostArray]:
    """Ln of the probability of ending in the blank after n labels, and in label n, before the first frame."""
    after_blank = np.full(labels + 1, -inf)
    after_blank[0] = 0.0
    return after_blank, np.full(labels, -inf)
