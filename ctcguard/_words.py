"""Numbers as they are said."""

from __future__ import annotations

UNCOUNTED = ("information",)


def plural(count: float, word: str) -> str:
    """A whole number with its noun.

    Examples
    --------
    >>> plural(1, "label"), plural(2000, "label"), plural(3, "information")
    ('1 label', '2,000 labels', '3 information')
    """
    return f"{count:,.0f} {word}" + ("" if count == 1 or word in UNCOUNTED else "s")
