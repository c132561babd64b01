from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

import ctcguard
from ctcguard import runner
from ctcguard.runner import Guards


def test_a_fork_leaves_the_guard_to_its_parent(capsys: pytest.CaptureFixture[str]) -> None:
    guards = Guards({})
    guards.running["torch"] = None  # closing it would fail
    guards._process = os.getpid() + 1
    guards.close()
    assert capsys.readouterr().err == ""


def test_guards_are_closed_in_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    guards = Guards({})
    for name in ("torch", "jax"):
        guards.running[name] = SimpleNamespace(close=lambda failed, name=name: closed.append(name))
    guards._seen.add("torch")
    guards.close()
    guards.close()
    assert closed == ["jax", "torch"]


def test_every_trainer_gets_the_callback_of_the_running_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(ctcguard), "CTCGuard", lambda **given: ("callback", given))
    trainer: Any = SimpleNamespace(DEFAULT_CALLBACKS=["flow"])
    guards = Guards({})
    runner._join_trainers(guards, trainer)
    assert trainer.DEFAULT_CALLBACKS == ["flow"]
    guards.running["torch"] = "the guard"
    runner._join_trainers(guards, trainer)
    assert trainer.DEFAULT_CALLBACKS == ["flow", ("callback", {"guard": "the guard"})]
