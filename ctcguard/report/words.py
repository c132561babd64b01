"""Texts of a run as a page can show them: cut to a length, and with nothing in them that steers a reader."""

from __future__ import annotations

import html
import json
import math
from typing import Any

TEXT_CHARACTERS, SYMBOL_CHARACTERS = 600, 12
UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
"""What could end a script element or begin an entity; json.dumps writes U+2028 and U+2029 as escapes itself."""


def cut(text: str, characters: int = TEXT_CHARACTERS) -> str:
    """The beginning of a long text, and how long it is.

    Examples
    --------
    >>> cut("abcdef", 3)
    'abc … (6 characters)'
    """
    return text if len(text) <= characters else f"{text[:characters]} … ({len(text):,} characters)"


def symbol(text: str) -> str:
    r"""A symbol of a vocabulary on an axis: short, a space as ␣, what cannot be seen as its escape.

    Examples
    --------
    >>> symbol(" "), symbol(chr(0x202E)), symbol("e")
    ('␣', '\\u202e', 'e')
    """
    shown = "".join("␣" if c == " " else c if c.isprintable() else repr(c)[1:-1] for c in text)
    return shown if len(shown) <= SYMBOL_CHARACTERS else shown[: SYMBOL_CHARACTERS - 1] + "…"


def label(text: str) -> str:
    """A text for Plotly, which reads tags in labels: they are shown, not read.

    Examples
    --------
    >>> label("<pad>")
    '&lt;pad&gt;'
    """
    return html.escape(text, quote=False)


def embedded(value: Any) -> str:
    r"""JSON that is safe inside of a script element.

    Raises
    ------
    ValueError
        For NaN and infinities, which JSON lacks.

    Examples
    --------
    >>> embedded("</script>")
    '"\\u003c/script\\u003e"'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character, escape in UNSAFE.items():
        text = text.replace(character, escape)
    return text


def finite(value: Any) -> float | None:
    """A number with five digits, or None where it is none or not finite."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(f"{value:.5g}")
