"""Hand-made histories of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctcguard.history import CALLS, COLUMNS
from ctcguard.readings import Readings

Column = np.ndarray[Any, np.dtype[np.float64]]

COLLAPSED: dict[str, Any] = {
    "blank_fraction": 1.0,
    "top_class": 0.0,
    "top_fraction": 1.0,
    "labels": 20.0,
    "input_length_mean": 100.0,
    "loss_nats": 57.0,
    "constant_ratio": 0.9,
    "uniform_ratio": 0.3,
}
"""All blank, one label in five frames, the loss of a constant output."""


def history(calls: int = CALLS, last_step: int = 2000, **columns: Any) -> dict[str, Column]:
    """All columns, (calls,); those not given are NaN, and a number stands for itself at every call."""
    known = {"step": np.arange(last_step + 1.0 - calls, last_step + 1), **columns}
    return {name: np.full(calls, known.get(name, np.nan), dtype=float) for name in COLUMNS}


def collapsed(calls: int = CALLS, last_step: int = 2000, **other: Any) -> dict[str, Column]:
    """A run that stands still at all blanks, but for what is given."""
    return history(calls, last_step, **(COLLAPSED | other))


def readings(columns: dict[str, Column], **other: Any) -> Readings:
    """What a rule is given at every sixteenth call."""
    return Readings({"history": columns, "blank": 0, **other})


def noisy(level: float, deviation: float, calls: int = CALLS, seed: int = 0) -> Column:
    """The same loss at every call, but for noise."""
    return level * (1 + deviation * np.random.default_rng(seed).standard_normal(calls))
