"""The loss scale of ``torch.amp.GradScaler``, looked at after each of its updates."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ctcguard._array import is_host
from ctcguard.guard import Guard
from ctcguard_integrations.torch_pending import Pending

Tell = Callable[[Any, bool], None]
"""Told of a scaler that was updated, and whether its scale was set by hand."""

_original: Any = None
_replacement: Any = None


def install(tell: Tell) -> None:
    """From now on every update of a scaler is told of. Twice is harmless."""
    global _original, _replacement
    if _replacement is not None and torch.amp.GradScaler.update is _replacement:
        return
    _original = torch.amp.GradScaler.update

    @functools.wraps(_original)
    def update(self: Any, new_scale: Any = None) -> None:
        _original(self, new_scale)
        tell(self, new_scale is not None)

    _replacement = update
    torch.amp.GradScaler.update = update  # type: ignore[method-assign]


def uninstall() -> None:
    """The scaler is as it was before, unless somebody else has replaced its method since."""
    global _replacement
    if _replacement is not None and torch.amp.GradScaler.update is _replacement:
        torch.amp.GradScaler.update = _original  # type: ignore[method-assign]
        _replacement = None


@dataclass(slots=True)
class _Trace:
    """The last scale of a scaler, and how many updates in a row have lowered it."""

    scale: float
    halvings: int = 0


class Scales:
    """Follows the scale of every scaler.

    Parameters
    ----------
    guard : Guard
        Told of every scale that was lowered.
    pending : Pending
        Takes scales that are on a device.
    """

    def __init__(self, guard: Guard, pending: Pending) -> None:
        self._guard = guard
        self._pending = pending
        self._traces: WeakKeyDictionary[Any, _Trace] = WeakKeyDictionary()

    def updated(self, scaler: torch.amp.GradScaler, by_hand: bool) -> None:
        """A scaler was updated: read its scale now, or with whatever else is on its way from the device."""
        scale = scaler._get_scale_async() if scaler.is_enabled() else None
        if scale is None:
            return
        if is_host(scale):
            self._follow(scaler, float(scale), by_hand)
        else:
            self._pending.add(scale.clone(), lambda values: self._follow(scaler, float(values[0]), by_hand))

    def _follow(self, scaler: Any, scale: float, by_hand: bool) -> None:
        trace = self._traces.setdefault(scaler, _Trace(scale))
        lowered = scale < trace.scale and not by_hand
        trace.scale, trace.halvings = scale, trace.halvings + 1 if lowered else 0
        if lowered:
            self._guard.check_step({"loss_scale": scale, "loss_scale_halvings": trace.halvings}, "GradScaler.update")
