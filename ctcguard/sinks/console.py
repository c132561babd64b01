"""The screen: one panel a verdict, on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ctcguard.finding import Finding, Severity
from ctcguard.verdict import ROW_CHARACTERS, Verdict, inert

STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFORMATION: "bold cyan"}
LABELS = {"fix": "bold green", "cause": "bold"}


def panel(verdict: Verdict) -> Panel:
    """A verdict as a rich panel. Text from data sets is shown as text, never read as markup."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    where = [("call", inert(verdict.place(), ROW_CHARACTERS))] if verdict.place() else []
    for label, text in where + verdict.rows():
        style = LABELS.get(label, "dim" if label else "bold")
        table.add_row(Text(label, style=style), Text(text, style="bold" if label in ("", "fix") else ""))
    style = STYLES[verdict.root.severity]
    return Panel(table, title=Text(verdict.headline(), style=style), title_align="left", border_style=style)


class ConsoleSink:
    """Shows verdicts whose action is more than ``log``.

    Parameters
    ----------
    console : rich.console.Console, optional
        stderr by default; plain text when that is not a terminal.
    """

    name = "console"

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)

    def finding(self, finding: Finding) -> None:
        """Nothing: findings are shown in their verdict."""

    def verdict(self, verdict: Verdict) -> None:
        """Show the panel; a character that the terminal does not have, as Python writes it in a string."""
        encoding = self._console.encoding
        if encoding.startswith("utf"):
            self._console.print(panel(verdict))
            return
        with self._console.capture() as shown:
            self._console.print(panel(verdict))
        self._console.file.write(shown.get().encode(encoding, "backslashreplace").decode(encoding))
        self._console.file.flush()

    def readings(self, scalars: Mapping[str, float], step: int) -> None:
        """Nothing: the screen belongs to the training."""

    def end(self, record: Mapping[str, Any]) -> None:
        """Nothing: a healthy run stays quiet."""
