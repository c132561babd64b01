"""Runs that went wrong, and files of a run as a guard writes them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ctcguard import CTCVerdictError, watch
from ctcguard.finding import Finding, Severity
from ctcguard.verdict import Verdict

SCRIPT, QUOTES, RIGHT_TO_LEFT, DUCK = "<script>window.pwned=1</script>", "\"'`&lt;", "שלום\u202eabc", "🦆"
SYMBOLS = ["<pad>", " ", SCRIPT, QUOTES, RIGHT_TO_LEFT, DUCK, "<b>", "\u2028", "e", "f"]
LONG = "long name " * 1000
IDS = ("<img src=x onerror=window.pwned=1>", "</script><script>window.pwned=1</script>", "{{ 7 * 7 }}", "\u202e" + LONG)
STOPPED_AT = 6


def train(run_dir: Path, stop_at: int = STOPPED_AT, **settings: Any) -> None:
    """A small training in PyTorch that passes softmax instead of log_softmax from some step on."""
    torch.manual_seed(0)
    model = nn.Linear(12, len(SYMBOLS))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with suppress(CTCVerdictError), watch(run_dir=run_dir, vocabulary=SYMBOLS, **settings) as guard:
        for step in range(10):
            guard.batch(IDS)
            logits = model(torch.randn(4, 30, 12))
            scores = logits.softmax(-1) if step >= stop_at else logits.log_softmax(-1)
            targets = torch.tensor([[2, 3, 4, 5, 6], [7, 2, 8, 1, 4], [2, 2, 9, 9, 3], [5, 1, 5, 1, 5]])
            loss = nn.functional.ctc_loss(scores.transpose(0, 1), targets, (30, 28, 26, 24), (5, 5, 5, 4))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a training that was stopped, its transcripts and names hostile."""
    folder = tmp_path_factory.mktemp("broken") / "run"
    train(folder)
    return folder


@pytest.fixture(scope="session")
def redacted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("redacted") / "run"
    train(folder, redact=True)
    return folder


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("healthy") / "run"
    train(folder, stop_at=99)
    return folder


def a_finding(step: int, severity: Severity = Severity.WARNING, **fields: Any) -> Finding:
    """One of many."""
    known: dict[str, Any] = {"code": "CTC301", "name": "too-few-frames", "cause": "too-short", "message": "too short"}
    return Finding(severity=severity, step=step, fix="use longer clips", **(known | fields))


def write_run(folder: Path, findings: Iterable[Finding], rows: Iterable[dict[str, Any]], end: bool = True) -> Path:
    """The files of a run: each finding with a verdict of its own at the first of its code and cause."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, said = [], set()
    for finding in findings:
        lines.append(finding.record())
        if (finding.code, finding.cause) not in said:
            said.add((finding.code, finding.cause))
            lines.append(Verdict(root=finding, action="alert").record())
    if end:
        end_line = {"type": "end", "schema": 1, "steps": 9, "calls": 9, "findings": len(lines), "codes": {}}
        lines.append(end_line | {"overhead_fraction": 0.01})
    (folder / "findings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    rows = list(rows)
    if rows:
        head = {"type": "readings", "schema": 1, "calls": len(rows), "every": 1}
        (folder / "readings.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in [head, *rows]), encoding="utf-8"
        )
    return folder
