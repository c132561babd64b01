"""The pairs of tests/failures, as this benchmark needs them."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.failures import pairs

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Program:
    """A pair and what identifies its two programs.

    Attributes
    ----------
    pair : Pair
        As the tests read it.
    kind : str
        Its folder: ``torch``, ``hf`` or ``jax``.
    digest : str
        Of all but the header, which changes nothing that runs, and of the settings.
    header : int
        Lines of the header. Lines of the program are counted from there, so that they stay when the header grows.
    wrong_line : int
        The line that is marked, so counted.
    told : tuple of str
        What ctcguard is told of it besides ``ctcguard run``: settings of the pair; a vocabulary or a loss of the user's
        own, for which the program names it.
    """

    pair: pairs.Pair
    kind: str
    digest: str
    header: int
    wrong_line: int
    told: tuple[str, ...]

    def after_header(self, lines: Iterable[int]) -> tuple[int, ...]:
        """Lines of the file, counted from the end of its header."""
        return tuple(line - self.header for line in lines)


def program(path: Path) -> Program:
    """Read one file."""
    pair = pairs.read(path)
    header = header_of(pair.broken)
    [marked] = pairs.marked_lines(pair.broken)
    body = "\n".join(pair.broken.splitlines()[header:]) + json.dumps(pair.settings, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()[:16]
    return Program(pair, path.parent.name, digest, header, marked + 1 - header, told(pair))


def told(pair: pairs.Pair) -> tuple[str, ...]:
    """What ctcguard knows of a pair that no other tool can be told."""
    calls = [line for line in pair.broken.splitlines() if "ctcguard." in line]
    vocabulary = ["vocabulary"] * any("vocabulary=" in line for line in calls)
    loss = ["own loss"] * ("guard.observe(" in pair.broken)
    return (*vocabulary, *loss, *sorted(pair.settings))


def header_of(source: str) -> int:
    """How many lines the docstring takes."""
    return ast.parse(source).body[0].end_lineno or 0


def programs(root: Path = pairs.HERE) -> list[Program]:
    """All of them, in the order of their names.

    Parameters
    ----------
    root : Path
        Where the folders are: those of the tests, or a copy that nobody edits while the tools run.
    """
    return [program(path) for folder in pairs.FOLDERS for path in sorted((root / folder).glob("*.py"))]
