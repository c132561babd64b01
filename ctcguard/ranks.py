"""Which process of a job this is, as its launcher says it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Place(NamedTuple):
    """One process among those that train together.

    Attributes
    ----------
    rank : int
        Its number, from 0.
    ranks : int
        How many there are.
    """

    rank: int = 0
    ranks: int = 1

    def folder(self, common: Path) -> Path:
        """Where its files go: into a folder of its own below the one of the job, unless it is alone."""
        return common if self.ranks == 1 else common / f"rank-{self.rank}"


def launched() -> Place:
    """What the environment says (``RANK`` and ``WORLD_SIZE``: torchrun, accelerate, deepspeed); alone without it.

    Examples
    --------
    >>> os.environ |= {"RANK": "3", "WORLD_SIZE": "8"}
    >>> launched()
    Place(rank=3, ranks=8)
    >>> del os.environ["RANK"], os.environ["WORLD_SIZE"]
    >>> launched()
    Place(rank=0, ranks=1)
    """
    rank, ranks = (_number(name) for name in ("RANK", "WORLD_SIZE"))
    return Place(rank, max(ranks, rank + 1))


def _number(name: str) -> int:
    text = os.environ.get(name, "").strip()
    return int(text) if text.isdecimal() else 0
