"""Transcripts of a training data set, looked at before training without drawing a sample from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLUMNS = ("text", "sentence", "transcription", "transcript", "normalized_text", "raw_text", "target_text")
TEXTS = 64


def texts_of(dataset: Any) -> tuple[str, ...]:
    """The first texts of a data set of `datasets`, or of a list of examples; empty for anything else.

    An item of any other data set may be made when it is asked for, with random numbers of the training.

    Parameters
    ----------
    dataset : object
        What a Trainer trains on.
    """
    if isinstance(dataset, list):
        rows = dataset[:TEXTS]
        name = next((n for n in COLUMNS if rows and isinstance(rows[0], Mapping) and n in rows[0]), None)
        return () if name is None else _strings([row.get(name) for row in rows])
    names = getattr(dataset, "column_names", None)
    name = next((n for n in COLUMNS if isinstance(names, list) and n in names), None)
    if name is None or not hasattr(dataset, "select_columns") or not hasattr(dataset, "__getitem__"):
        return ()
    return _strings(dataset.select_columns([name]).with_format(None)[:TEXTS][name])


def _strings(values: Any) -> tuple[str, ...]:
    return tuple(value for value in values if isinstance(value, str) and value)
