"""What the demo shows: a few plain lines around the guard's own panel. Colours are the terminal's own sixteen."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

if TYPE_CHECKING:
    from transformers import TrainerCallback

LABEL_WIDTH = 10
REPORTS = 4
READABLE = Theme({"progress.elapsed": "", "progress.download": "", "bar.complete": "cyan", "bar.finished": "green"})


class Screen:
    """Lines on stdout, in the order in which they are read.

    Parameters
    ----------
    console : rich.console.Console, optional
        stdout by default; plain text when that is not a terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, theme=READABLE)

    def title(self, text: str) -> None:
        """A heading, with an empty line before it."""
        self.console.print()
        self.console.print(Text(text, style="bold cyan"))

    def row(self, label: str, text: str, style: str = "") -> None:
        """One labelled line; long text is folded under itself."""
        width = max(20, self.console.width - LABEL_WIDTH - 4)
        for number, line in enumerate(Text(text, style=style).wrap(self.console, width)):
            line.rstrip()
            head = f"  {'' if number else label:<{LABEL_WIDTH}}  "
            self.console.print(Text.assemble((head, "bold"), line), no_wrap=True, overflow="ignore", crop=False)

    def busy(self, text: str) -> AbstractContextManager[object]:
        """A sign of life on a terminal, while nothing else is shown."""
        return self.console.status(Text(text), spinner="line") if self.console.is_terminal else nullcontext()

    def table(self, cases: Iterable[tuple[str, str, bool]]) -> None:
        """How all cases ended: name, what the guard said, and whether that was right."""
        grid = Table.grid(padding=(0, 2))
        for name, said, ok in cases:
            mark = Text("ok" if ok else "FAILED", style="bold green" if ok else "bold red")
            grid.add_row("", mark, Text(name, style="bold"), Text(said))
        self.console.print(grid)

    def outcome(self, ok: bool, text: str) -> None:
        """How a case ended."""
        self.row("ok" if ok else "FAILED", text, "bold green" if ok else "bold red")


class ProgressBar:
    """A bar on a terminal; elsewhere a line for every quarter of the steps.

    Parameters
    ----------
    screen : Screen
        Where it goes.
    steps : int
        How many there will be.
    """

    def __init__(self, screen: Screen, steps: int) -> None:
        self._screen, self._steps = screen, steps
        columns = (BarColumn(28), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"), TimeElapsedColumn())
        label = TextColumn(f"  [bold]{'training':<{LABEL_WIDTH}}[/bold] ")
        self._bar = Progress(label, *columns, console=screen.console, disable=not screen.console.is_terminal)
        self._task = self._bar.add_task("training", total=steps, loss="")

    def moved(self, step: int) -> None:
        """Show how many steps have been taken."""
        self._bar.start()
        self._bar.update(self._task, completed=step)

    def logged(self, step: int, loss: float, findings: int = 0) -> None:
        """Show the loss, and how much the guard has found so far."""
        self._bar.update(self._task, loss=f"loss {loss:.3f}, guard: {findings or 'no'} findings")
        if self._bar.disable and step * REPORTS // self._steps > (step - 1) * REPORTS // self._steps:
            self._screen.row("training", f"step {step} of {self._steps}, loss {loss:.3f}")

    def close(self) -> None:
        """Leave it as it stands; also needed after an exception, for the Trainer then does not say that it ended."""
        self._bar.stop()


def progress_callback(bar: ProgressBar, findings: Callable[[], int] = int) -> TrainerCallback:
    """Tell the Trainer to move a bar.

    Parameters
    ----------
    bar : ProgressBar
        To be moved.
    findings : callable
        How many the guard has made so far.

    Returns
    -------
    TrainerCallback
        For ``trainer.add_callback``.
    """
    from transformers import TrainerCallback

    class Moves(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            bar.moved(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if "loss" in kwargs["logs"]:
                bar.logged(state.global_step, float(kwargs["logs"]["loss"]), findings())

    return Moves()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what libraries say about themselves (advice, deprecations of their own); errors still come through."""
    loggers = [logging.getLogger(name) for name in ("transformers", "accelerate", "wandb")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
