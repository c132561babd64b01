"""``kill -9`` while findings are written: whole lines only, and nothing lost that was acknowledged."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctcguard.finding import Finding, Severity
from ctcguard.sinks.jsonl import JsonLines
from tests.distributed.launch import program

FILE = Path("findings.jsonl")
KILLS = int(os.environ.get("KILLS", "12"))
"""In CI; ``KILLS=150 pytest tests/distributed/test_killed.py`` takes a few minutes."""


def a_finding() -> Finding:
    return Finding(code="CTC301", name="x", severity=Severity.ERROR, cause="too-short", message="the next", fix="")


@pytest.mark.timeout(300)
def test_killed_at_random_moments() -> None:
    moments = random.Random(0)
    for _ in range(KILLS):
        FILE.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, program("writes")], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"0\n"
            time.sleep(moments.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read()
        acknowledged = rest.count(b"\n")
        written = FILE.read_bytes()
        assert written.endswith(b"\n")
        messages = [json.loads(line)["message"] for line in written.splitlines()]
        assert messages == [f"number {number}" for number in range(len(messages))]
        assert len(messages) in (acknowledged + 1, acknowledged + 2)  # the last may not have been said


@pytest.mark.parametrize("torn", ["", '{"type": "fin', '{"type": "finding", "text": "' + 20_000 * "é", "x"])
@pytest.mark.parametrize("whole", [0, 1, 3])
def test_a_line_that_a_dead_process_left_unfinished_is_taken_away_by_the_next_to_write(torn: str, whole: int) -> None:
    sink = JsonLines(FILE)
    for _ in range(whole):
        sink.finding(a_finding())
    before = FILE.read_bytes() if whole else b""
    FILE.write_bytes(before + torn.encode()[: -1 if "é" in torn else None])
    sink.finding(a_finding())
    after = FILE.read_bytes()
    assert after.startswith(before)
    assert [json.loads(line)["message"] for line in after.splitlines()] == ["the next"] * (whole + 1)


def test_a_full_disk_leaves_whole_lines_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = JsonLines(FILE)
    sink.finding(a_finding())
    before = FILE.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))  # what the system does on a full disk
    with pytest.raises(OSError, match="No space left"):
        sink.finding(a_finding())
    assert FILE.read_bytes() == before


def test_a_line_of_several_pages_that_cannot_be_written_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = JsonLines(FILE)
    sink.finding(a_finding())
    before = FILE.read_bytes()

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        sink.finding(a_finding().model_copy(update={"message": "long" * 5000}))
    assert FILE.read_bytes() == before
    assert [path.name for path in Path().iterdir()] == [FILE.name]


def test_processes_that_share_a_file_lose_nothing_of_each_other() -> None:
    writer = (
        "from pathlib import Path; from ctcguard.sinks.jsonl import JsonLines\n"
        "sink = JsonLines(Path('findings.jsonl'))\n"
        "for number in range(60): sink.end({'type': 'end', 'text': 'x' * (number % 4 * 1500)})"
    )
    processes = [subprocess.Popen([sys.executable, "-c", writer]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len([json.loads(line) for line in FILE.read_text().splitlines()]) == 180


def test_half_a_character_from_a_data_set_is_written() -> None:
    sink = JsonLines(FILE)
    sink.finding(a_finding().model_copy(update={"message": "half \ud83d"}))
    assert json.loads(FILE.read_text(encoding="utf-8"))["message"] == "half \ud83d"
