"""Promise: every row of docs/reliability.md names a test that is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<fault>.+?) \| (?P<training>.+?) \| (?P<finding>.+?) \| (?P<test>\S+::\S+) \|$", re.MULTILINE)


def named(text: str) -> list[str]:
    return [row["test"] for row in ROW.finditer(text)]


def missing(text: str) -> list[str]:
    """Tests that the table names and that are not there, nor collected by their name."""
    found = []
    for test in named(text):
        path, name = test.split("::")
        file = ROOT / path
        tree = ast.parse(file.read_text(encoding="utf-8")) if file.exists() and path.startswith("tests/") else None
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)] if tree else []
        if name not in functions or not name.startswith("test_") or not file.name.startswith("test_"):
            found.append(test)
    return found


def test_every_row_names_a_test_that_is_there() -> None:
    assert missing(TEXT) == []


def test_every_row_of_a_table_is_read() -> None:
    lines = [line for line in TEXT.splitlines() if line.startswith("|") and not line.startswith(("| fault", "|---"))]
    assert len(lines) == len(named(TEXT))


def test_there_are_forty_faults_and_more() -> None:
    faults = [row["fault"] for row in ROW.finditer(TEXT)]
    assert len(faults) == len(set(faults)) >= 40


def test_the_tests_of_faults_are_all_named() -> None:
    files = {test.split("::")[0] for test in named(TEXT)}
    assert {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "faults").glob("test_*.py")} <= files


def test_twin_a_test_that_is_not_there_is_seen() -> None:
    row = "| a | b | c | tests/faults/test_parts.py::test_{} |\n"
    assert missing(row.format("a_probe_that_raises")) == []
    assert missing(row.format("a_probe_that_sings")) == ["tests/faults/test_parts.py::test_a_probe_that_sings"]
    assert len(missing("| a | b | c | tests/faults/training.py::train |\n")) == 1
