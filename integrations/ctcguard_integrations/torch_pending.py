"""Measurements on their way from a device: read when an optimizer is about to step, or when they have arrived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ctcguard._array import HostArray
from ctcguard.errors import CTCVerdictError

LONGEST = 32
"""Measurements kept back when no optimizer steps (a long evaluation); then they are sent on their way."""

Judge = Callable[[HostArray], None]


@dataclass(slots=True)
class _Flight:
    """One copy to the host under way: all measurements since the last one, in a row."""

    host: torch.Tensor
    arrived: Any
    judges: list[tuple[int, Judge]]


class DeviceTime:
    """The time that a device worked on what was asked of it within a ``with`` block; on the host the clock counts that.

    Parameters
    ----------
    device : torch.device
        Only CUDA is timed.
    """

    def __init__(self, device: torch.device) -> None:
        cuda = device.type == "cuda"
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if cuda else []

    def __enter__(self) -> None:
        if self._events:
            self._events[0].record()

    def __exit__(self, *error: object) -> None:
        if self._events:
            self._events[1].record()

    def seconds(self) -> float:
        """To be asked when a later copy to the host has arrived: then nothing is waited for."""
        return self._events[0].elapsed_time(self._events[1]) / 1e3 if self._events else 0.0


class Pending:
    """A queue of packed measurements with what to do when they are read."""

    def __init__(self) -> None:
        self._waiting: list[tuple[torch.Tensor, Judge]] = []
        self._flights: list[_Flight] = []

    def add(self, packed: torch.Tensor, judge: Judge) -> None:
        """Queue a measurement, (length,), on its device."""
        self._waiting.append((packed.reshape(-1), judge))
        if len(self._waiting) >= LONGEST:
            self.send()

    def send(self) -> None:
        """Start one copy to the host for all that waits, without waiting for the device."""
        if not self._waiting:
            return
        together = torch.cat(
            [packed.to(torch.float64 if _wide(self._waiting) else torch.float32) for packed, _ in self._waiting]
        )
        arrived = None
        if together.is_cuda:
            host = torch.empty_like(together, device="cpu", pin_memory=True)
            host.copy_(together, non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        else:
            host = together.cpu()
        self._flights.append(_Flight(host, arrived, [(packed.numel(), judge) for packed, judge in self._waiting]))
        self._waiting = []

    def read(self, wait: bool) -> None:
        """Judge what has arrived; with ``wait``, all that was queued."""
        if wait:
            self.send()
        while self._flights and (wait or self._flights[0].arrived is None or self._flights[0].arrived.query()):
            flight = self._flights.pop(0)
            if flight.arrived is not None:
                flight.arrived.synchronize()
            values, start = flight.host.double().numpy(), 0
            failed: Exception | None = None
            for length, judge in flight.judges:
                start += length
                try:
                    judge(values[start - length : start])
                except CTCVerdictError:
                    raise
                except Exception as error:  # noqa: BLE001 - raised when those behind it have been judged
                    failed = failed or error
            if failed is not None:
                raise failed


def _wide(waiting: list[tuple[torch.Tensor, Judge]]) -> bool:
    return any(packed.dtype == torch.float64 for packed, _ in waiting)
