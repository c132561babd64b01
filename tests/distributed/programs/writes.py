"""Write findings as fast as possible, and say of each on stdout, in one write, that it is written."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from ctcguard.finding import Finding, Severity, Utterance
from ctcguard.sinks.jsonl import JsonLines

sink = JsonLines(Path("findings.jsonl"))
for number in itertools.count():
    # Long enough for many pages of memory: a write of them can be cut in between.
    labels = tuple(range(number % 7 * 900))
    sink.finding(
        Finding(
            code="CTC301",
            name="too-few-frames",
            severity=Severity.ERROR,
            cause="too-short",
            message=f"number {number}",
            fix="",
            utterances=(Utterance(index=number, text="é" * (number % 5 * 40), labels=labels),),
        )
    )
    os.write(1, f"{number}\n".encode())
