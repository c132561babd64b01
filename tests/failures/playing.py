"""What is asked of every pair, in one file of tests for each framework: so are they run side by side."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.failures.pairs import Alarm, Pair, alarms, execute, files, guarded, read, records, wrong_about

FRAMEWORKS = {"torch": ("torch",), "hf": ("torch", "transformers.trainer"), "jax": ("optax",)}


def every(folder: str) -> Any:
    """A parameter ``path`` for each pair of a folder."""
    return pytest.mark.parametrize("path", files(folder), ids=lambda path: path.stem)


def found_in(pair: Pair, source: str, folder: Path) -> list[Alarm]:
    """The alarms of one program, whose frameworks have been imported so that its seed is the same in every order."""
    for name in FRAMEWORKS[pair.path.parent.name]:
        importlib.import_module(name)
    with guarded(folder, pair.settings):
        execute(source, pair.path)
    return alarms(records(folder))


def broken_is_named(path: Path, folder: Path) -> None:
    """The broken program is caught for what it is, when it happens, once."""
    pair = read(path)
    raised = None
    try:
        found_in(pair, pair.broken, folder)
    except Exception as error:
        raised = error
        if type(error).__name__ != pair.raises:
            raise
    assert (raised is None) == (not pair.raises)
    assert wrong_about(pair, alarms(records(folder))) == []


def fixed_is_left_in_peace(path: Path, folder: Path) -> None:
    """Its fixed twin gives no alarm, though its loss is seen."""
    pair = read(path)
    assert found_in(pair, pair.fixed, folder) == []
    assert any(line["type"] == "end" and line["calls"] for line in records(folder)), "the loss was not seen"
