"""What draws random numbers in a pass: the operation, the module and the user's own line."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ctcguard.callsite import call_site
from ctcguard_integrations.torch_model_trees import tensors


class Draw(NamedTuple):
    """One draw: the operation, the module that was running, ``file:line``, and how many numbers it may have drawn."""

    operation: str
    place: str
    site: str
    size: int


class RandomDraws(TorchDispatchMode):
    """Notes what draws random numbers while it is entered.

    Parameters
    ----------
    running : callable
        The name of the module that is being called.

    Attributes
    ----------
    seen : list of Draw
        In order. Of Python's and numpy's own numbers it is only known that some were drawn.
    """

    def __init__(self, running: Callable[[], str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Draw] = []
        self._running = running

    def __enter__(self) -> RandomDraws:
        self._states = _states()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for name, state in _states().items():
            if self._states.get(name) != state:
                self.seen.append(Draw(name, "", "", 0))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in func.tags:
            size = max((tensor.numel() for tensor in tensors(result)), default=0)
            self.seen.append(Draw(func.overloadpacket.__name__, self._running(), call_site(2), size))
        return result


def _states() -> dict[str, Any]:
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return {"random": random.getstate()}
    name, keys, *others = numpy.random.get_state()
    return {"random": random.getstate(), "numpy.random": (name, keys.tobytes(), others)}


def likeliest(draws: list[Draw]) -> Draw | None:
    """The draw that makes outputs differ most: the largest. Attention kernels come last, for most draw nothing."""
    sure = [draw for draw in draws if "attention" not in draw.operation]
    return max(sure or draws, key=lambda draw: draw.size, default=None)
