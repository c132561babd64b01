"""findings.jsonl: one JSON object a line, whole lines only, flushed at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctcguard.finding import Finding
from ctcguard.verdict import Verdict


class JsonLines:
    """Appends findings, verdicts and the end record to a file; the file is made with the first line.

    Parameters
    ----------
    path : Path
        Its directory is made too.
    """

    name = "findings.jsonl"

    def __init__(self, path: Path) -> None:
        self.path = path

    def _write(self, record: Mapping[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")

    def finding(self, finding: Finding) -> None:
        """Write the finding."""
        self._write(finding.record())

    def verdict(self, verdict: Verdict) -> None:
        """Write the verdict."""
        self._write(verdict.record())

    def readings(self, scalars: Mapping[str, float], step: int) -> None:
        """Nothing: the file is for findings."""

    def end(self, record: Mapping[str, Any]) -> None:
        """Write the last line."""
        self._write(record)
