"""What one tool saw of one program: the same few facts, whichever tool it was."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS, CHARACTERS = 8, 2000
"""What is kept: the first alarm of so many kinds, and so much of each message, its beginning and its end."""


@dataclass(frozen=True)
class Alarm:
    """What a tool said.

    Attributes
    ----------
    step : int
        Optimizer steps taken when it was said.
    kind : str
        The same for two alarms about the same thing: a rule, an operation.
    message : str
        What a person gets to read, but for tracebacks.
    lines : tuple of int
        Lines of the program that a traceback shows.
    """

    step: int
    kind: str
    message: str
    lines: tuple[int, ...] = ()


@dataclass(frozen=True)
class Ending:
    """The exception with which a program ended; ``kind`` is its type."""

    step: int
    kind: str
    message: str
    lines: tuple[int, ...] = ()


@dataclass
class Observation:
    """One program under one tool.

    Attributes
    ----------
    alarms : list of Alarm
        In the order in which they were said; the first of each kind.
    count : int
        How many there were in all.
    ending : Ending, optional
        None when the program ended by itself.
    steps : int
        Optimizer steps taken.
    failure : str
        Why the tool could not look at this program; empty if it could.
    """

    alarms: list[Alarm] = field(default_factory=list)
    count: int = 0
    ending: Ending | None = None
    steps: int = 0
    failure: str = ""

    def add(self, alarm: Alarm) -> None:
        """Keep the first of its kind."""
        self.count += 1
        if len(self.alarms) < KINDS and alarm.kind not in {known.kind for known in self.alarms}:
            self.alarms.append(alarm)

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is empty is left out."""
        filled: dict[str, Any] = _filled(asdict(self))
        return filled | {"steps": self.steps}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Observation:
        """The inverse of `to_json`."""
        alarms = [Alarm(**_with_lines(alarm)) for alarm in values.get("alarms", [])]
        ending = values.get("ending")
        return cls(
            alarms,
            values.get("count", 0),
            Ending(**_with_lines(ending)) if ending else None,
            values["steps"],
            values.get("failure", ""),
        )


def _filled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _filled(each) for name, each in value.items() if each or name in ("step", "message")}
    return [_filled(each) for each in value] if isinstance(value, list | tuple) else value


def _with_lines(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "lines": tuple(values.get("lines", ()))}


def shown_lines(error: BaseException, path: str) -> tuple[int, ...]:
    """Lines of a file that the traceback of an exception shows."""
    lines = (number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == path)
    return tuple(dict.fromkeys(lines))


def cleaner(*folders: str) -> Callable[[str], str]:
    """Make texts the same on every machine: no folders, no addresses, no colours, not endless."""

    def clean(text: str) -> str:
        text = re.sub(r"\x1b\[[0-9;]*m", "", text)
        for folder in sorted(folders, key=len, reverse=True):
            text = text.replace(f"{folder}/", "")
        text = re.sub(r"\S*/site-packages/", "", text)
        text = re.sub(r"0x[0-9a-f]{6,}", "0x…", text)
        if len(text) > CHARACTERS:
            text = f"{text[: CHARACTERS // 2]} … {text[-CHARACTERS // 2 :]}"
        return text.strip()

    return clean
