"""Transcripts of a training data set, looked at before training without drawing a sample from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = ("text", "sentence", "transcription", "transcript", "normalized_text", "raw_text", "target_text")
TEXTS = 64


def texts_of(dataset: Any) -> tuple[str, ...]:
    """The first texts of a data set of `datasets`, or of a list of examples; empty for anything else.

    An item of any other data set may be made when it is asked for, with random numbers of the training. Of two columns
    of texts (raw and normalised ones, as LJ Speech has them) nobody knows which the labels are made of.

    Parameters
    ----------
    dataset : object
        What a Trainer trains on.
    """
    if isinstance(dataset, list):
        rows = dataset[:TEXTS]
        name = _only([*rows[0]] if rows and isinstance(rows[0], Mapping) else [])
        return () if name is None else _strings([row.get(name) for row in rows])
    names = getattr(dataset, "column_names", None)
    name = _only(names if isinstance(names, list) else [])
    if name is None or not hasattr(dataset, "select_columns") or not hasattr(dataset, "__getitem__"):
        return ()
    return _strings(dataset.select_columns([name]).with_format(None)[:TEXTS][name])


def _only(names: list[str]) -> str | None:
    found = [name for name in COLUMNS if name in names]
    return found[0] if len(found) == 1 else None


def _strings(values: Any) -> tuple[str, ...]:
    return tuple(value for value in values if isinstance(value, str) and value)
