"""The latest calls of a run, and what can be said of how they went."""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot, inf, sqrt
from typing import Final

import numpy as np

from ctcguard._array import HostArray

MARGIN: Final = 0.02
"""So little below the loss of a uniform output, nothing was learned."""
FAR: Final = 1.5
"""So many times the loss of an output that knows nothing, the scores were driven far out."""
PARTS: Final = 8
"""Parts of the window that must agree."""
NORMAL: Final = 1.4826 * 1.2533
"""From the median distance to the median, to the standard error of a median (times the root of the count)."""


class Window:
    """The latest training calls.

    Parameters
    ----------
    columns : mapping of str to array, (calls,)
        As in `ctcguard.history.History.columns`; NaN where a call was not measured.
    """

    def __init__(self, columns: Mapping[str, HostArray]) -> None:
        self._columns = columns
        self.calls = len(columns["step"])

    def __getitem__(self, name: str) -> HostArray:
        return self._columns[name]

    def latest(self, calls: int) -> Window:
        """The last so many calls."""
        return Window({name: values[-calls:] for name, values in self._columns.items()})

    def before(self, calls: int) -> Window:
        """All but the last so many calls."""
        return Window({name: values[:-calls] for name, values in self._columns.items()})

    def reached(self, calls: int, steps: int) -> bool:
        """Whether so many calls are there, and the run has taken so many steps."""
        return self.calls >= calls and bool(self["step"][-1] >= steps)

    def span(self) -> str:
        """For messages: ``the last 1024 training calls (steps 977 to 2000)``."""
        first, last = self["step"][0], self["step"][-1]
        return f"the last {self.calls} training calls (steps {first:.0f} to {last:.0f})"

    def known(self, name: str) -> HostArray:
        """The numbers that were measured, and are finite."""
        values = self[name]
        found: HostArray = values[np.isfinite(values)]
        return found

    def median(self, name: str) -> float:
        """Over the calls that were measured; NaN when none was."""
        return _quantile(self.known(name), 0.5)

    def quantile(self, name: str, share: float) -> float:
        """Of at least three quarters of the calls, else NaN."""
        values = self.known(name)
        return _quantile(values, share) if 4 * len(values) >= 3 * self.calls else float("nan")

    def fall(self, name: str, errors: float = 2.0) -> float:
        """By what share a loss may have fallen, from the first quarter to the last quarter or the last eighth.

        Medians are compared, and so many standard errors added: only a small number says that the loss stood still.
        Infinite when less than three quarters of the calls are known.
        """
        values = self.known(name)
        if 4 * len(values) < 3 * self.calls:
            return inf
        start, error = _level(values[: len(values) // 4])
        if not start > 0:
            return inf
        ends = [_level(values[-(len(values) // part) :]) for part in (4, 8)]
        return max((start - end + errors * hypot(error, doubt)) / start for end, doubt in ends)

    def emitted(self) -> float:
        """Frames that the blank does not win, for each frame that the labels need at least: the most of eight parts.

        A right transcript needs 1. Infinite when too few calls were measured.
        """
        blank, frames = self["blank_fraction"], self["input_length_mean"]
        known = np.isfinite(blank) & (frames > 0)
        if not self.enough(int(known.sum())):
            return inf
        edges = np.arange(PARTS) * self.calls // PARTS
        won = np.add.reduceat(np.where(known, 1 - blank, 0), edges)
        needed = np.add.reduceat(np.where(known, self["labels"] / np.where(known, frames, 1), 0), edges)
        return float(np.max(won[needed > 0] / needed[needed > 0])) if (needed > 0).any() else inf

    def enough(self, measured: int) -> bool:
        """Whether what is measured less often over budget was measured often enough."""
        return measured >= max(4, self.calls // 32)

    def frames_per_label(self) -> float:
        """Over all calls."""
        return float(np.nansum(self["input_length_mean"]) / np.nansum(self["labels"]))

    def pairing(self) -> float:
        """How well the number of labels follows the number of frames: at most this correlation, or 1 if unknown.

        Two standard errors are added. Nothing is known where the lengths of the calls hardly differ.
        """
        frames, labels = self["input_length_mean"], self["labels"]
        if min(np.std(frames) / np.mean(frames), np.std(labels) / np.mean(labels)) < 0.05:
            return 1.0
        return float(np.corrcoef(frames, labels)[0, 1] + 2 / sqrt(self.calls))

    def knows_nothing(self, margin: float) -> bool:
        """Whether the loss is that of a uniform output or above, in 95% of the calls."""
        return self.quantile("uniform_ratio", 0.05) >= 1 - margin


def _level(values: HostArray) -> tuple[float, float]:
    """The median and its standard error."""
    median = _quantile(values, 0.5)
    return median, NORMAL * _quantile(np.abs(values - median), 0.5) / sqrt(len(values))


def _quantile(values: HostArray, share: float) -> float:
    """The one of the values that this share is below, NaN for none: np.quantile takes ten times as long."""
    return float(np.sort(values)[round(share * (len(values) - 1))]) if len(values) else float("nan")
