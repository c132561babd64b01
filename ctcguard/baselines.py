"""What outputs that know nothing would lose: the closed forms that a run is held against."""

from __future__ import annotations

from typing import Final

import numpy as np

from ctcguard._array import HostArray

LARGEST: Final = 2**20
"""Frames or labels that are counted at most: a length that is garbage must not take memory."""


class Baselines:
    """Losses in nats of outputs that do not listen. Keeps tables of ln n! and n ln n."""

    def __init__(self) -> None:
        self._log_factorial = self._n_log_n = np.zeros(1)

    def losses(self, lengths: HostArray, classes: int, symbols: int) -> tuple[HostArray, HostArray]:
        """Of a uniform output, and of the best one that is the same in every frame.

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
        >>> uniform, constant = Baselines().losses(np.asarray([[200], [20], [1]]), classes=29, symbols=28)
        >>> round(float(uniform[0])), round(float(constant[0]))
        (572, 69)
        """
        frames, labels, repeats = lengths
        factorial, n_log_n = self._tables(int((frames + labels).max(initial=0)))
        twice, blanks, free = 2 * labels, frames - labels, frames - repeats
        alignments = factorial[free + labels] - factorial[twice] - factorial[free - labels]
        uniform: HostArray = frames * np.log(classes) - alignments
        entropy = n_log_n[frames] - n_log_n[labels] - n_log_n[blanks]
        placements = factorial[free] - factorial[labels] - factorial[free - labels]
        single = labels * np.log(symbols) + entropy - placements
        return uniform, np.minimum(single, frames * np.log(symbols + 1) - alignments)

    def _tables(self, largest: int) -> tuple[HostArray, HostArray]:
        """The logarithms of n! and n ln n for n from 0 on."""
        if largest >= len(self._log_factorial):
            n = np.arange(1, 2 * largest + 2)
            self._log_factorial = np.concatenate([[0.0], np.cumsum(np.log(n))])
            self._n_log_n = np.concatenate([[0.0], n * np.log(n)])
        return self._log_factorial, self._n_log_n
