"""A probe, a rule or a sink that fails, hangs or talks nonsense: said once, and the training stays bit-equal."""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import ctcguard_integrations.torch_capture as torch_capture
from ctcguard import reporter
from ctcguard.guard import Guard
from ctcguard.rules.log_probs.unnormalised_log_probs import UnnormalisedLogProbs
from ctcguard.settings import load
from ctcguard_integrations import torch_loop
from ctcguard_integrations.torch_loop import watch
from tests.faults.training import FOUND, RUN_DIR, guarded, lines, own_faults, plain, train, written

MEASURE = torch_capture, "read"
"""Where scores and losses of a call on the host are measured."""


class MuteError(Exception):
    """An exception whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def kind_of(error: Exception) -> str:
    return type(error).__name__


def endless(*_: Any) -> Any:
    return endless(*_)


def raising(error: Exception) -> Any:
    def raises(*_: Any, **__: Any) -> Any:
        raise error

    return raises


def test_twin_a_training_that_differs_in_one_bit_is_seen() -> None:
    run = train()
    run.weights[0].view(torch.int32)[0, 0] ^= 1
    assert not run.same(plain())


def test_without_a_fault_the_wrong_batch_is_found_and_nothing_else() -> None:
    guard = guarded()
    assert {finding.code for finding in guard.findings} == written() == FOUND
    assert [record["code"] for record in lines("verdict")] == ["CTC402"]
    [end] = lines("end")
    assert (end["calls"], end["findings"]) == (5, 3)


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("0"), MemoryError(), RecursionError("deep"), FloatingPointError("overflow"), MuteError()],
    ids=kind_of,
)
def test_a_probe_that_raises(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MEASURE, raising(error))
    [fault] = guarded(on_warning="raise").findings
    assert (fault.code, fault.readings["where"]) == ("CTC902", "torch.ctc_loss")
    assert type(error).__name__ in fault.message
    assert [record["code"] for record in lines("finding")] == ["CTC902"]


def test_a_probe_that_never_returns_from_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MEASURE, endless)
    [fault] = guarded().findings
    assert "RecursionError" in fault.message


@pytest.mark.parametrize(
    "nonsense",
    [None, 5, "abc", {}, {"losses": "abc", "score_max": None}, {"losses": float("nan")}, {"score_max": object()}],
    ids=["None", "5", "abc", "nothing", "text", "nan", "object"],
)
def test_a_probe_that_returns_nonsense(nonsense: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MEASURE, lambda *_: nonsense)
    said = own_faults(guarded().findings)
    assert len({finding.readings["where"] for finding in said}) == len(said)  # each part once
    assert bool(said) == (nonsense != {})


def test_a_probe_that_fails_leaves_the_labels_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*MEASURE, raising(ZeroDivisionError("0")))
    log_probs, lengths = torch.randn(9, 2, 4).log_softmax(-1), torch.tensor([9, 9])
    with watch(on_error="alert", run_dir=RUN_DIR, sinks=("jsonl",)):
        for blank_at in (7, 3):  # beyond target_lengths, and within
            targets = torch.full((2, 8), 2)
            targets[:, blank_at] = 0
            torch.nn.functional.ctc_loss(log_probs, targets, lengths, torch.tensor([4, 4]))
    assert lines("finding")[0]["code"] == "CTC902"
    assert "CTC203" in written()


@pytest.mark.parametrize("returned", ["junk", 5, float("nan"), []], ids=str)
def test_a_rule_that_returns_nonsense_costs_only_itself(returned: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnnormalisedLogProbs, "check", lambda *_: returned)
    guard = guarded()
    [fault] = own_faults(guard.findings)
    assert fault.cause == "rule"
    assert written() == FOUND - {"CTC402"}


@pytest.mark.parametrize(
    "error", [KeyError("frames"), MemoryError(), MuteError()], ids=lambda error: type(error).__name__
)
def test_a_rule_that_raises_costs_only_itself(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnnormalisedLogProbs, "check", raising(error))
    [fault] = own_faults(guarded().findings)
    assert fault.message.startswith("rule CTC402 failed")
    assert written() == FOUND - {"CTC402"}


def test_a_fault_that_cannot_be_judged_is_said_on_the_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(*MEASURE, raising(ZeroDivisionError("0")))
    monkeypatch.setattr(reporter, "judge", raising(MemoryError()))
    assert guarded().findings == []
    line = "ctcguard: torch.ctc_loss failed (ZeroDivisionError); not reported (MemoryError); training goes on\n"
    assert capsys.readouterr().err == line


def test_almost_no_stack_left() -> None:
    """Near the end of the stack the guard gives up before the training does."""

    def deep(frames: int) -> torch.Tensor:
        if frames:
            return deep(frames - 1)
        torch.manual_seed(0)
        lengths = torch.tensor([9, 9]), torch.tensor([3, 2])
        return torch.nn.functional.ctc_loss(torch.randn(9, 2, 4).log_softmax(-1), torch.full((2, 3), 2), *lengths)

    def reached(first: int) -> int:
        for frames in range(first, 20_000):
            try:
                result = deep(frames)
            except RecursionError:
                return frames
            assert torch.equal(result, right)
        raise AssertionError

    right = deep(0)
    used = len(list(_frames()))
    without = reached(sys.getrecursionlimit() - used - 60)
    with watch(run_dir=RUN_DIR):
        assert without - reached(sys.getrecursionlimit() - used - 60) < 15  # frames of the guard above the loss itself


def _frames() -> Iterable[types.FrameType]:
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


class Sink:
    """One that does something else than it should at one of its methods."""

    name = "odd"

    def __init__(self, method: str, act: Any) -> None:
        self._method, self._act = method, act
        self.told: list[str] = []

    def _tell(self, method: str) -> None:
        self.told.append(method)
        if method == self._method:
            self._act()

    def finding(self, finding: Any) -> None:
        self._tell("finding")

    def verdict(self, verdict: Any) -> None:
        self._tell("verdict")

    def readings(self, scalars: Mapping[str, float], step: int) -> None:
        self._tell("readings")

    def end(self, record: Mapping[str, Any]) -> None:
        self._tell("end")


METHODS = ("finding", "verdict", "readings", "end")


@pytest.mark.parametrize("method", METHODS)
def test_a_sink_that_raises(method: str) -> None:
    sink = Sink(method, raising(MuteError()))
    [fault] = own_faults(guarded(sinks=[sink]).findings)
    assert fault.code == ("CTC903" if method == "verdict" else "CTC902")
    assert "odd" in fault.message
    assert sink.told.count(method) == 1
    assert written() == FOUND


@pytest.mark.parametrize("method", METHODS)
def test_a_sink_that_hangs_is_left_behind(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "DEADLINE_S", 0.2)
    released = threading.Event()
    sink = Sink(method, lambda: released.wait(60))
    started = time.monotonic()
    guard = guarded(sinks=[sink])
    seconds = time.monotonic() - started
    released.set()
    assert 0.2 < seconds < 20  # waited for once, not at each of its methods
    [fault] = own_faults(guard.findings)
    assert "no answer within 0.2 s" in fault.evidence
    assert sink.told[-1] == method
    assert written() == FOUND
    assert lines("end")


def test_a_slow_sink_is_waited_for() -> None:
    sink = Sink("verdict", lambda: time.sleep(0.3))
    assert own_faults(guarded(sinks=[sink]).findings) == []
    assert sink.told[-1] == "end"


def test_a_sink_that_is_none() -> None:
    faults = own_faults(guarded(sinks=[object()]).findings)  # type: ignore[list-item]
    assert {fault.code for fault in faults} == {"CTC902", "CTC903"}
    assert written() == FOUND


@pytest.mark.parametrize("module", [None, types.ModuleType("wandb")], ids=["blocked", "a folder"])
def test_a_wandb_that_is_none(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", module)
    settings = load(on_error="alert", run_dir=RUN_DIR)
    assert [sink.name for sink in torch_loop.outer_sinks(settings)] == ["wandb"]
    with watch(guard=Guard(settings, torch_loop.outer_sinks(settings))) as guard:
        assert train().same(plain())
    assert own_faults(guard.findings) == []
    assert written() == FOUND


def test_a_record_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctcguard.flight.write", raising(MemoryError()))
    [fault] = own_faults(guarded().findings)
    assert "flight record" in fault.message
    assert written() == FOUND
    assert list(Path(RUN_DIR).glob("*.safetensors")) == []
