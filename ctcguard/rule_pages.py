"""The rules as text: a page each, a table, a JSON list, a folder of Markdown. All of it comes from their classes."""

from __future__ import annotations

import difflib
import inspect
import re
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ctcguard.errors import SettingsError
from ctcguard.finding import Severity
from ctcguard.rules import ALL, rule_named
from ctcguard.rules._rule import Rule
from ctcguard.sinks.console import STYLES

_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_FIRST_SENTENCE = re.compile(r"## What it does\s+(.+?\.)(?:\s|$)", re.DOTALL)


def find(text: str) -> type[Rule]:
    """The rule with that code or name, in any case.

    Raises
    ------
    SettingsError
        When there is none; the message names what comes near, else all codes.
    """
    try:
        return rule_named(text.strip().replace("_", "-"))
    except SettingsError:
        wanted = text.strip().lower().replace("_", "-")
        near = _near(wanted if wanted.startswith("ctc") or not wanted.isdigit() else f"ctc{wanted}")
        advice = f"did you mean {' or '.join(near)}?" if near else f"the codes are {', '.join(r.code for r in ALL)}"
        raise SettingsError(f"{text!r} is no rule of ctcguard; {advice}") from None


def _near(wanted: str) -> list[str]:
    titles = {key: title(rule) for rule in ALL for key in (rule.code.lower(), rule.name())}
    begins = [key for key in titles if wanted and key.startswith(wanted)]
    close = difflib.get_close_matches(wanted, titles, n=3, cutoff=0.7 if wanted.startswith("ctc") else 0.5)
    return list(dict.fromkeys(titles[key] for key in begins or close))


def title(rule: type[Rule]) -> str:
    """Code and name: ``CTC402 unnormalised-log-probs``."""
    return f"{rule.code} {rule.name()}"


def page(rule: type[Rule]) -> str:
    """The manual page in Markdown: a title, then the docstring of the class with its examples fenced."""
    body = _DOCTEST.sub(lambda example: f"```pycon\n{example[0]}\n```", inspect.cleandoc(rule.__doc__ or ""))
    return f"# {title(rule)}\n\n{body}\n"


def summary(rule: type[Rule]) -> str:
    """The first sentence of "What it does", on one line and without markup."""
    found = _FIRST_SENTENCE.search(inspect.cleandoc(rule.__doc__ or ""))
    sentence = " ".join(found[1].split()) if found else ""
    return re.sub(r"\\(\W)", r"\1", sentence.replace("`", ""))


def rows() -> list[tuple[str, str, str, str]]:
    """Code, name, severity and summary of every rule."""
    return [(rule.code, rule.name(), rule.severity.value, summary(rule)) for rule in ALL]


def table() -> Table:
    """All rules, for a terminal."""
    grid = Table("code", "name", "severity", "what it checks", box=None, pad_edge=False)
    for code, name, severity, checks in rows():
        grid.add_row(Text(code), Text(name), Text(severity, style=STYLES[Severity(severity)]), Text(checks))
    return grid


def records() -> list[dict[str, Any]]:
    """All rules as JSON objects."""
    return [
        {
            "code": rule.code,
            "name": rule.name(),
            "severity": rule.severity.value,
            "summary": summary(rule),
            "causes": list(rule.causes),
            "explains": list(rule.explains),
            "thresholds": [
                {"name": name, "default": field.default, "description": field.description or ""}
                for name, field in rule.model_fields.items()
            ],
        }
        for rule in ALL
    ]


def files(folder: Path) -> dict[Path, str]:
    """What the folder of pages must hold: file to text."""
    return {folder / f"{rule.code}-{rule.name()}.md": page(rule) for rule in ALL}


def write(folder: Path) -> list[Path]:
    """Write all pages; the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = files(folder)
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    return list(wanted)


def stale(folder: Path) -> list[Path]:
    """Files that are missing, differ from the rule's page, or belong to no rule."""
    wanted = files(folder)
    wrong = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    return [*wrong, *sorted(set(folder.glob("CTC*.md")) - wanted.keys())]
