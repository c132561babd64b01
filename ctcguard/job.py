"""What a reporter asks of the other processes of its job, and the answers of a process that is alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ctcguard.errors import CTCVerdictError
from ctcguard.finding import Finding
from ctcguard.ranks import Place
from ctcguard.sinks import Sink
from ctcguard.verdict import Verdict


class Job:
    """A process that is alone: it shows its verdicts itself, and nobody waits for it.

    Attributes
    ----------
    place : Place
        Which of the processes this is.
    """

    place = Place()

    def heard(self, wait: bool = False) -> Sequence[Finding]:
        """What other processes have announced since this was last asked; with ``wait``, what is about to come too."""
        return ()

    @contextmanager
    def announcing(self, verdict: Verdict) -> Iterator[Callable[[Sink], bool]]:
        """Around telling the sinks of a new cause; gives whether a sink is to be told by this process."""
        yield lambda _: True

    def leaving(self, error: CTCVerdictError) -> None:
        """A verdict is about to be raised."""

    def stops(self, verdict: Verdict) -> bool:
        """Whether the processes will stop together, later; else this one stops now."""
        return False

    def poll(self) -> None:
        """An optimizer is about to step."""

    def counted(self) -> None:
        """It is the one whose steps are counted."""

    def close(self) -> None:
        """The guard ends."""
