"""Addresses of the manual."""

from __future__ import annotations

RULES = "https://github.com/ctcguard/ctcguard/blob/main/docs/rules"


def rule_url(code: str, name: str) -> str:
    """Where the page of a rule is read.

    Parameters
    ----------
    code, name : str
        As a finding carries them.

    Returns
    -------
    str
        An address.

    Examples
    --------
    >>> rule_url("CTC402", "unnormalised-log-probs")
    'https://github.com/ctcguard/ctcguard/blob/main/docs/rules/CTC402-unnormalised-log-probs.md'
    """
    return f"{RULES}/{code}-{name}.md"
