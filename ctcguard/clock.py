"""What the guard itself takes of the time, held against its budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Final

from ctcguard.errors import CTCVerdictError

Fault = Callable[[str, Exception], None]

ALWAYS_CALLS: Final = 32
"""Calls measured whatever the budget says: most mistakes are there from the first one on."""
MEMORY_CALLS: Final = 1024
"""After so many calls half of what was counted is forgotten: what a run can afford changes."""
AIM: Final = 0.6
"""Of the budget, what is filled with measurements that can be left out. The rest is for what the guard's own clock does
not show, such as what it pushes out of the caches: a stopwatch, too, has to find it within (docs/cost.md)."""
SELDOM_CALLS: Final = 17
"""One in so many calls is measured although contracts alone take the budget, for rules about whole runs need it …
A prime, so that losses that take turns all have theirs."""
DEAR: Final = 32.0
"""… unless that costs more than so many times what the contracts cost."""


class Clock:
    """Counts the guard's own seconds, and says at which calls only contracts are checked.

    After the first calls the distribution is measured when the guard's share, with what that costs, stays within `AIM`
    of the budget: of the last two times the less, for a machine may be busy once. So a dear measurement is a rare one.

    Parameters
    ----------
    budget : float or None
        Share of the time that the guard may take, in (0, 1]. None for no limit: then no clock decides what is measured.

    Attributes
    ----------
    now : callable
        Seconds that the run has taken.
    """

    def __init__(self, budget: float | None) -> None:
        self._budget = budget
        self.now: Callable[[], float] = time.perf_counter
        self._calls = 0
        self._started_s: float | None = None
        self._spent_s = self._spent_before_s = 0.0
        self._counted_from_s = self._counted_s = 0.0
        self._contract_s = self._sample_s = 0.0
        self._last_sample_s = inf
        self._over = False

    @property
    def over_budget(self) -> bool:
        """Whether only contracts are checked at the call at hand."""
        return self._over

    def start(self) -> float:
        """The guard begins to work."""
        now_s = self.now()
        if self._started_s is None:
            self._started_s = self._counted_from_s = now_s
        return now_s

    def stop(self, started_s: float) -> None:
        """The guard has worked since ``started_s``."""
        self.spend(self.now() - started_s)

    def spend(self, seconds: float) -> None:
        """Count seconds that were spent elsewhere, for instance on a device."""
        self._spent_s += seconds
        self._counted_s += seconds

    def called(self) -> None:
        """A call begins: count the one before, and decide how this one is measured."""
        self._calls += 1
        if self._budget is None:
            return
        cost_s, self._spent_before_s = self._spent_s - self._spent_before_s, self._spent_s
        if self._over:  # a mean, for what is judged later lies at one call or at the next
            self._contract_s += (cost_s - self._contract_s) / (8 if self._contract_s else 1)
        else:
            sample_s = max(0.0, cost_s - self._contract_s)
            self._sample_s, self._last_sample_s = min(sample_s, self._last_sample_s), sample_s
        now_s = self.now()
        if self._calls == ALWAYS_CALLS + 1:
            self._counted_from_s, self._counted_s = now_s, 0.0
        elif self._calls % MEMORY_CALLS == 0:
            self._counted_from_s += (now_s - self._counted_from_s) / 2
            self._counted_s /= 2
        affordable = self._counted_s + self._sample_s <= AIM * self._budget * (now_s - self._counted_from_s)
        due = self._calls % SELDOM_CALLS == 0 and self._sample_s <= DEAR * self._contract_s
        self._over = self._calls > ALWAYS_CALLS and not (affordable or due)

    def fraction(self) -> float:
        """The guard's share of the time since the first call, in [0, 1]."""
        return self._share(self._spent_s, self._started_s)

    def recent_fraction(self) -> float:
        """Its share of late, without the first calls: what the budget is held against."""
        return self._share(self._counted_s, None if self._started_s is None else self._counted_from_s)

    def _share(self, spent_s: float, since_s: float | None) -> float:
        elapsed_s = self.now() - since_s if since_s is not None else 0.0
        return min(1.0, spent_s / elapsed_s) if elapsed_s > 0 else 0.0


class Contained:
    """A context that times the guard's own work and keeps its faults out of the training; verdicts pass.

    Parameters
    ----------
    clock : Clock
        Told of the time.
    fault : callable
        Told of an exception; ``where`` comes first.
    where : str
        What was done.
    """

    __slots__ = ("_clock", "_fault", "_started_s", "_where")

    def __init__(self, clock: Clock, fault: Fault, where: str) -> None:
        self._clock, self._fault, self._where = clock, fault, where
        self._started_s = 0.0

    def __enter__(self) -> None:
        self._started_s = self._clock.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._clock.stop(self._started_s)
        if not isinstance(error, Exception) or isinstance(error, CTCVerdictError):
            return False
        self._fault(self._where, error)
        return True
