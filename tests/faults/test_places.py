"""Files, clocks and screens that fail while a training is under way."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ctcguard_integrations.torch_loop import watch
from tests.faults.training import FOUND, RUN_DIR, WRONG, at, guarded, lines, own_faults, plain, train, written

FULL = Path("/dev/full")


def test_the_run_directory_is_removed(capsys: pytest.CaptureFixture[str]) -> None:
    """What was written before goes with it; what is found afterwards has a new one."""
    with watch(on_error="alert", run_dir=RUN_DIR) as guard:
        train(wrong=(0,))
        assert written() == FOUND
        shutil.rmtree(RUN_DIR)
        assert train(wrong=(0,)).same(train(wrong=(0,)))
    assert own_faults(guard.findings) == []
    assert written() == FOUND
    assert lines("end")
    assert capsys.readouterr().err.count("CTC402 unnormalised-log-probs") == 1


def test_a_file_where_the_run_directory_should_be(capsys: pytest.CaptureFixture[str]) -> None:
    RUN_DIR.write_text("not a directory")
    guard = guarded(sinks_named=("console", "jsonl"))
    faults = own_faults(guard.findings)
    assert {fault.readings["where"] for fault in faults} >= {"sink findings.jsonl", "sink flight record"}
    assert {finding.code for finding in guard.findings} >= FOUND
    assert "CTC402 unnormalised-log-probs" in capsys.readouterr().err  # the screen has it all the same
    assert RUN_DIR.read_text() == "not a directory"


def test_a_directory_that_turns_read_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As the system answers then; the tests may run as root, whom no permission stops."""
    real = os.open

    def refused(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if str(path).endswith("findings.jsonl"):
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *args, **options)

    with monkeypatch.context() as patch:
        guard = guarded(at(1, lambda: patch.setattr(os, "open", refused)), sinks_named=("console", "jsonl"))
    assert [fault.readings["where"] for fault in own_faults(guard.findings)] == ["sink findings.jsonl"]
    assert "CTC402 unnormalised-log-probs" in capsys.readouterr().err
    assert list(RUN_DIR.glob(f"{WRONG}-*.safetensors"))


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
@pytest.mark.may_skip("/dev/full is Linux's")
def test_a_device_that_is_full(capsys: pytest.CaptureFixture[str]) -> None:
    guard = guarded(findings=FULL, sinks_named=("console", "jsonl"))
    [fault] = own_faults(guard.findings)
    assert "No space left on device" in fault.message
    assert "CTC402 unnormalised-log-probs" in capsys.readouterr().err


def test_the_working_directory_changes(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    guard = guarded(at(1, lambda: os.chdir(elsewhere)))
    os.chdir(tmp_path)
    assert own_faults(guard.findings) == []
    assert written() == FOUND
    assert list(elsewhere.iterdir()) == []


def test_the_working_directory_is_removed(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    try:
        guard = guarded(at(1, gone.rmdir), run_dir=tmp_path / RUN_DIR)
    finally:
        os.chdir(tmp_path)
    assert own_faults(guard.findings) == []
    assert written() == FOUND


@pytest.mark.parametrize("budget", [None, 0.01])
@pytest.mark.parametrize("name", ["time", "perf_counter", "monotonic"])
def test_a_clock_that_jumps(name: str, budget: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back by an hour, on by a year, below zero."""
    real, jumps = getattr(time, name), random.Random(0)
    with monkeypatch.context() as patch:
        patch.setattr(time, name, lambda: real() + jumps.choice([0, -3600, 3.2e7, -2 * real()]))
        guard = guarded(budget=budget)
    assert own_faults(guard.findings) == []
    assert written() == FOUND
    [end] = lines("end")
    assert end["overhead_fraction"] <= 1


def test_a_clock_that_jumps_does_not_end_the_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it makes of the budget, labels and lengths are checked at every call."""
    log_probs, lengths = torch.randn(9, 2, 4).log_softmax(-1), torch.tensor([9, 9])
    with monkeypatch.context() as patch, watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl",)) as guard:
        patch.setattr(time, "perf_counter", iter(range(0, -(10**6), -1)).__next__)
        for label in [2] * 60 + [0]:
            torch.nn.functional.ctc_loss(log_probs, torch.full((2, 3), label), lengths, torch.tensor([3, 3]))
    assert [finding.code for finding in guard.findings if finding.severity == "error"] == ["CTC203"]


class Ended(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, closed(), Ended()], ids=["none", "closed", "broken pipe"])
def test_a_screen_that_is_gone(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        patch.setattr(sys, "stdout", stream)
        guard = guarded(sinks_named=("console", "jsonl"))
    assert [fault.code for fault in own_faults(guard.findings)] == ([] if stream is None else ["CTC903"])
    assert written() >= FOUND


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "euc-jp", "utf-16"])
def test_a_terminal_that_does_not_have_all_characters(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding, "strict")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        guard = guarded(sinks_named=("console", "jsonl"))
    assert own_faults(guard.findings) == []
    screen.flush()
    shown = screen.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert "CTC402 unnormalised-log-probs" in shown
    assert "pass log_softmax(x, -1) instead of softmax(x, -1)" in shown


def test_plain_is_plain() -> None:
    """What every test here compares with does not change from run to run."""
    assert train().same(plain())
