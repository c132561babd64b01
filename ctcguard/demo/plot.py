"""A plot for any terminal: one line of plain characters for each value."""

from __future__ import annotations

import math
from collections.abc import Sequence


def bars(values: Sequence[float], width: int) -> list[str]:
    """Horizontal bars on one scale: to the right of a common zero line above zero, to the left below.

    Parameters
    ----------
    values : sequence of float
        One that is not finite has no bar, and no part in the scale.
    width : int
        Columns for the longest bar to the left and the longest to the right together, at least 2.

    Returns
    -------
    list of str
        One line a value: ``#`` marks and the zero line ``|``, at most ``width`` + 1 characters. Every value but 0 has
        at least one mark, so that its sign is seen.

    Examples
    --------
    >>> for bar in bars([8.0, 3.0, -0.1, -3.0], width=12):
    ...     print(bar)
       |########
       |###
      #|
    ###|
    """
    finite = [value for value in values if math.isfinite(value)]
    mark = (max([0.0, *finite]) - min([0.0, *finite])) / (width - 1)

    def marks(value: float) -> str:
        return "#" * max(1, round(abs(value) / mark)) if value and math.isfinite(value) else ""

    left = max((len(marks(value)) for value in values if value < 0), default=0)
    return [f"{marks(value):>{left}}|" if value < 0 else f"{'':{left}}|{marks(value)}" for value in values]
