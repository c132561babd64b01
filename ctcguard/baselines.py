"""What outputs that know nothing would lose: the closed forms that a run is held against."""

from __future__ import annotations

from typing import Final

import numpy as np

from ctcguard._array import HostArray

LARGEST: Final = 2**20
"""Frames or labels that are counted at most: a length that is garbage must not take memory."""


_tables = {"ln n!": np.zeros(1), "n ln n": np.zeros(1)}


def ln_factorial(n: HostArray) -> HostArray:
    """The ln of n! of whole numbers from 0 on, by table.

    Examples
    --------
    >>> np.exp(ln_factorial(np.asarray([0, 3, 5]))).round().tolist()
    [1.0, 6.0, 120.0]
    """
    return _looked_up("ln n!", n)


def n_ln_n(n: HostArray) -> HostArray:
    """The product n ln n of whole numbers from 0 on, by table."""
    return _looked_up("n ln n", n)


def _looked_up(name: str, n: HostArray) -> HostArray:
    whole = n.astype(np.intp, copy=False)
    largest = int(whole.max(initial=0))
    if largest >= len(_tables[name]):
        numbers = np.arange(1, 2 * largest + 2)
        logs = np.log(numbers)
        _tables["ln n!"] = np.concatenate([[0.0], np.cumsum(logs)])
        _tables["n ln n"] = np.concatenate([[0.0], numbers * logs])
    return _tables[name][whole]


def baselines(lengths: HostArray, classes: int, symbols: int) -> tuple[HostArray, HostArray]:
    """The losses in nats of a uniform output, and of the best one that is the same in every frame.

    Uniform: ``T ln C - ln binom(T + U - r, 2U)``: all alignments cost the same, and that many there are. Constant:
    with the blank at ``1 - U/T`` and the K symbols sharing the rest, the alignments that give each label one frame
    cost ``U ln K + T h(U/T) - ln binom(T - r, U)``, where h is the entropy of a yes or no. The true value is lower,
    for there are other alignments: by at most 3% with 10 symbols or more, and 10% with 4. Where there are few
    symbols and many labels, a uniform output of the blank and these symbols may be the better one: the lower of
    the two is given. When labels are not equally frequent, less can be reached, in the proportion of their entropy
    to ln K.

    Parameters
    ----------
    lengths : int array, (3, utterances)
        T, U and r: frames, labels and adjacent repeats; T ≥ U + r.
    classes, symbols : int
        C and K: width of the head, and symbols beside the blank that occur.

    Returns
    -------
    uniform, constant : array, (utterances,)
        Nats, ≥ 0. Both are ``T ln C`` or less; without labels the constant is 0.

    References
    ----------
    Graves et al. 2006, eq. 3, for equal probabilities; compositions of T frames into runs for the counts.

    Examples
    --------
    >>> uniform, constant = baselines(np.asarray([[200], [20], [1]]), classes=29, symbols=28)
    >>> round(float(uniform[0])), round(float(constant[0]))
    (572, 69)
    """
    frames, labels, repeats = lengths
    free = frames - repeats
    of_free, of_labels = ln_factorial(free - labels), ln_factorial(labels)
    alignments = ln_factorial(free + labels) - ln_factorial(2 * labels) - of_free
    uniform: HostArray = frames * np.log(classes) - alignments
    entropy = n_ln_n(frames) - n_ln_n(labels) - n_ln_n(frames - labels)
    single = labels * np.log(symbols) + entropy - (ln_factorial(free) - of_labels - of_free)
    return uniform, np.minimum(single, frames * np.log(symbols + 1) - alignments)
