"""The ranks of ``torch.distributed``: met as soon as there is a process group, over the store that it has."""

from __future__ import annotations

import itertools
import os
import weakref
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ctcguard.guard import Guard
from ctcguard.ranks import Place
from ctcguard.team import Team

_meetings = itertools.count()


class GroupStore:
    """The key-value store of the default process group, under a prefix.

    No call of it waits for a key: the connection is the group's own, and torch needs it too.

    Parameters
    ----------
    prefix : str
        The same on all ranks, and new for each guard and each restart.
    """

    def __init__(self, prefix: str) -> None:
        self._store: Any = dist.distributed_c10d.PrefixStore(prefix, dist.distributed_c10d._get_default_store())

    def put_once(self, key: str, text: str) -> bool:
        """Write, unless the key is there; texts of two ranks for one key are never equal."""
        return bool(self._store.compare_set(key, "", text).decode() == text)

    def get(self, key: str) -> str | None:
        """The text, or None."""
        text = self._store.get(key).decode() if self._store.check([key]) else None
        return text or None

    def add(self, key: str, amount: int) -> int:
        """Add to a number; the sum."""
        return int(self._store.add(key, amount))


class Ranks:
    """What a watch asks of the other ranks.

    Parameters
    ----------
    guard : Guard
        Joins them.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._met = not dist.is_available()
        self._counted: weakref.ref[torch.optim.Optimizer] | None = None

    def meet(self) -> None:
        """Join the others when there is a process group. Until then this looks at a variable of torch's."""
        if self._met or not dist.is_initialized():
            return
        self._met = True
        place = Place(dist.get_rank(), dist.get_world_size())
        if place.ranks == 1:
            return
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = GroupStore(f"ctcguard/{attempt}/{next(_meetings)}")
        own = str(self._guard.job_dir)
        common = own if store.put_once("run_dir", own) else store.get("run_dir") or own
        self._guard.join(Team(store, place, self._guard.reporter), Path(common))

    def poll(self) -> None:
        """Before an optimizer steps: look, at agreed steps, whether to stop."""
        self._guard.reporter.job.poll()

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """Count the steps of the first optimizer: between two of them, all ranks exchange gradients."""
        if self._counted is None or self._counted() is None:
            self._counted = weakref.ref(optimizer)
        if self._counted() is optimizer:
            self._guard.reporter.job.counted()
