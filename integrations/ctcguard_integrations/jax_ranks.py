"""Several processes of JAX that run one program together: what each may read, and how they speak with one voice.

They exchange texts over the key-value store of ``jax.distributed``. A global array has parts on devices of other
processes, which nobody can read here: what was measured is kept on every device by the step itself (a few hundred
bytes), and of labels only the utterances of this process are read.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from jax._src import distributed
from jax.sharding import NamedSharding, PartitionSpec

from ctcguard.guard import Guard
from ctcguard.ranks import Place
from ctcguard.team import Team
from ctcguard.verdict import Verdict
from ctcguard_integrations.jax_measured import Measured

_meetings = itertools.count()


class ServiceStore:
    """The key-value store of the coordination service, under a prefix.

    Parameters
    ----------
    client : object
        Of the service; it has no public name.
    prefix : str
        The same in all processes, and new for each guard.
    """

    def __init__(self, client: Any, prefix: str) -> None:
        self._client, self._prefix = client, prefix

    def put_once(self, key: str, text: str) -> bool:
        """Write, unless the key is there."""
        try:
            self._client.key_value_set(f"{self._prefix}/{key}", text)
        except jax.errors.JaxRuntimeError as error:
            if "ALREADY_EXISTS" not in str(error):
                raise
            return False
        return True

    def get(self, key: str) -> str | None:
        """The text, or None."""
        try:
            return str(self._client.key_value_try_get(f"{self._prefix}/{key}"))
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" not in str(error):
                raise
            return None

    def add(self, key: str, amount: int) -> int:
        """Add to a number; the sum."""
        return int(self._client.key_value_increment(f"{self._prefix}/{key}", amount))


class Processes(Team):
    """Processes that run the same program on global arrays: all of them find the same, in the same step."""

    second_hand_s = 1.0

    def stops(self, verdict: Verdict) -> bool:
        """They stop at once: there is nothing to agree on."""
        return False


class Ranks:
    """What a recorder asks of the other processes.

    Parameters
    ----------
    guard : Guard
        Joins them.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._met = False
        self._everywhere: NamedSharding | None = None

    def meet(self, arguments: Any) -> None:
        """Before a step is called: join the others, and see, once, over which devices its arguments are spread."""
        state = distributed.global_state
        if state.client is None or state.num_processes in (None, 1):
            return
        if self._everywhere is None:
            self._everywhere = next(map(_replicated, filter(_is_global, jax.tree.leaves(arguments))), None)
        if self._met:
            return
        self._met = True
        place = Place(int(state.process_id), int(state.num_processes))
        store = ServiceStore(state.client, f"ctcguard/{next(_meetings)}")
        own = str(self._guard.job_dir)
        common = own if store.put_once("run_dir", own) else store.get("run_dir") or own
        self._guard.join(Processes(store, place, self._guard.reporter), Path(common))

    def readable(self, measured: Measured) -> Measured:
        """While a step is traced: keep what was measured whole on every device, so that each process can read it."""
        if self._everywhere is None or not isinstance(measured.packed, jax.core.Tracer):
            return measured
        return replace(measured, packed=jax.lax.with_sharding_constraint(measured.packed, self._everywhere))


def _is_global(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding) and not leaf.is_fully_addressable


def _replicated(array: Any) -> NamedSharding:
    return NamedSharding(array.sharding.mesh, PartitionSpec())
