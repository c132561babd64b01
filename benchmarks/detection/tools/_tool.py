"""What a tool is to this benchmark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

from benchmarks.detection.observation import Observation

Say = Callable[..., None]
"""``say(kind, message, step=None)``: the tool raised an alarm, now or at the step named."""

TORCH = ("torch", "hf")
JAX = ("jax",)


class Steps(Protocol):
    """A count of training steps."""

    taken: int

    def counting(self) -> Any:
        """A context manager: while the program runs."""


class Tool:
    """A tool, attached to a program from outside, as its documentation says.

    Attributes
    ----------
    name, title : str
        On the command line; at the head of its column.
    how : str
        How it was attached, for the reader of the table.
    folders : tuple of str
        The folders of pairs that it can look at.
    own : bool
        Whether it runs in the environment of ctcguard; else in that of the peers.
    itself : bool
        Whether it looks at both programs of a pair by itself, in processes of its own (`examine`).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    how: ClassVar[str]
    folders: ClassVar[tuple[str, ...]] = TORCH
    own: ClassVar[bool] = False
    itself: ClassVar[bool] = False

    def __init__(self, folder: Path, settings: dict[str, Any], output: Callable[[], str]) -> None:
        self.folder = folder
        self.settings = settings
        self.output = output

    def steps(self, kind: str) -> Steps:
        """The count of steps of a torch, hf or jax program."""
        if kind == "jax":
            from benchmarks.detection.jax_program import JaxSteps

            return JaxSteps()
        from benchmarks.detection.torch_program import TorchSteps

        return TorchSteps()

    @contextmanager
    def attached(self, kind: str, say: Say, steps: Steps) -> Iterator[None]:
        """Attached while the program runs."""
        yield

    def alarm(self, error: BaseException) -> tuple[str, str] | None:
        """Kind and message if it was the tool that raised this; None if not."""
        return None

    def lines(self, path: str) -> tuple[int, ...]:
        """Lines of the program that the tool showed on the screen with the last alarm."""
        return ()

    def examine(self, broken: str, fixed: str) -> dict[str, Observation]:
        """For a tool that is run by itself: both programs, in processes of its own."""
        raise NotImplementedError

    def finish(self, say: Say) -> None:
        """After the program, however it ended."""
