"""A verdict as a short text that one rank sends to another, and back."""

from __future__ import annotations

import json
from typing import Any

from ctcguard.finding import Finding
from ctcguard.verdict import Verdict

UNSEEN = {"readings": True, "utterances": {"__all__": {"labels"}}}
"""What no reader of a verdict is shown; it stays in the findings file of the rank that has it."""


def to_text(verdict: Verdict) -> str:
    """The verdict in JSON: what people are shown of it, a few kilobytes at most."""
    symptoms = [finding.model_copy(update={"utterances": (), "fix": ""}) for finding in verdict.also]
    return json.dumps(
        {
            "root": _finding(verdict.root),
            "also": [_finding(finding) for finding in symptoms],
            "ruled_out": list(verdict.ruled_out),
            "action": verdict.action,
        }
    )


def from_text(text: str) -> Verdict:
    """The verdict again.

    Raises
    ------
    ValueError
        If it is none.
    """
    return Verdict.model_validate(json.loads(text))


def _finding(finding: Finding) -> dict[str, Any]:
    body = finding.model_dump(mode="json", exclude=UNSEEN)  # type: ignore[arg-type]
    # Of the utterances concerned their number is shown, not which.
    return body | {"affected": list(range(len(finding.affected))), "ranks": finding.ranks}
