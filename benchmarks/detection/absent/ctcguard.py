"""Stands in for ctcguard while another tool looks: programs that name a vocabulary or a loss of their own import it.

Nothing is wrapped and nothing is watched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Absent:
    """Takes what a guard takes."""

    def observe(self, **call: Any) -> None:
        """Look away."""


@contextmanager
def watch(**settings: Any) -> Iterator[Absent]:
    """Watch nothing."""
    yield Absent()


class guard_step:  # noqa: N801 - the name that the programs import
    """The step as it is."""

    def __init__(self, step: Callable[..., Any], **settings: Any) -> None:
        self._step = step

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the step."""
        return self._step(*args, **kwargs)

    def close(self) -> None:
        """Nothing was opened."""
