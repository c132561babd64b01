"""What the rules about a model say in the same words: how much outputs differ, and where that is first seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctcguard._array import HostArray
from ctcguard.readings import Readings


class Parting(NamedTuple):
    """Where two passes part.

    Attributes
    ----------
    place : str
        Name and class of the first module with another result, or "the model".
    module, parent : str
        Its class, and name and class of the module that calls it.
    inside : bool or None
        Whether it was given the same; None if that is not known.
    """

    place: str
    module: str
    parent: str
    inside: bool | None

    def evidence(self) -> str:
        """What was seen there, in words; nothing where nothing was."""
        if not self.module:
            return ""
        if self.inside:
            return f"first seen in {self.place}: what it was given was the same"
        if self.inside is None:
            return f"first seen in what {self.place} returns"
        return f"first seen in what {self.place} is given: it comes about before, in the code of {self.parent}"

    def where(self) -> str:
        """The code to look at."""
        return f"before {self.place}, in {self.parent}" if self.inside is False else f"in {self.place}"


def parting(readings: Readings) -> Parting:
    """What the readings say of the place."""
    return Parting(
        str(readings.get("parting_place", "the model")),
        str(readings.get("parting_module", "")),
        str(readings.get("parting_parent", "") or "the model"),
        readings.get("parting_inside"),
    )


def changed(readings: Readings, name: str) -> HostArray:
    """Indices of the utterances that change by more than rounding, most first."""
    changes = readings.column(name)
    order = np.argsort(-np.nan_to_num(changes, nan=np.inf), kind="stable")
    beyond: HostArray = order[~(changes[order] <= readings["output_limit"])]
    return beyond


def amount(readings: Readings, value: float) -> str:
    """A difference with its unit and the limit of rounding."""
    precision = readings.get("output_precision", "float32")
    limit = f"rounding ({precision}): at most {readings['output_limit']:.2g}"
    return f"{value:.2g} {readings.get('output_unit', 'nats')} ({limit})"


def numbers(readings: Readings, *names: str) -> dict[str, float]:
    """The readings that were judged, columns by their largest value."""
    values = {name: readings[name] for name in (*names, "output_limit") if name in readings}
    return {name: float(np.max(value)) for name, value in values.items()}
