"""Findings and verdicts as HTML, for notebooks. All text is escaped; colours fit a light and a dark page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from ctcguard.finding import Finding, Severity
from ctcguard.verdict import Verdict

COLOURS = {Severity.ERROR: "#d9363e", Severity.WARNING: "#c77700", Severity.INFORMATION: "#1f7fbf"}
BOX = "border-left:4px solid {colour};padding:.4em .8em;margin:.4em 0;max-width:60em;line-height:1.4;color:inherit"
TABLE = "border:0;border-collapse:collapse;background:none;margin:.2em 0"
LABEL = "text-align:right;vertical-align:top;opacity:.7;padding:.1em .8em .1em 0;background:none;white-space:nowrap"
TEXT = "text-align:left;vertical-align:top;padding:.1em 0;background:none;overflow-wrap:anywhere;white-space:pre-wrap"


def finding_html(finding: Finding) -> str:
    """A finding on its own, shown as a verdict without symptoms."""
    return verdict_html(Verdict(root=finding))


def verdict_html(verdict: Verdict) -> str:
    """Headline, place and the rows of a verdict."""
    rows = [("call", verdict.place())] if verdict.place() else []
    return _box(verdict.headline(), COLOURS[verdict.root.severity], [*rows, *verdict.rows()])


def _box(headline: str, colour: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = "".join(_row(label, text) for label, text in rows)
    head = f'<div style="color:{colour};font-weight:bold">{escape(headline)}</div>'
    table = f'<table style="{TABLE}"><tbody>{lines}</tbody></table>'
    return f'<div style="{BOX.format(colour=colour)}">{head}{table}</div>'


def _row(label: str, text: str) -> str:
    weight = "font-weight:bold;" if label in ("", "fix") else ""
    return (
        f'<tr style="background:none"><th scope="row" style="{LABEL}">{escape(label)}</th>'
        f'<td dir="auto" style="{weight}{TEXT}">{escape(text)}</td></tr>'
    )
