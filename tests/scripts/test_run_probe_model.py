"""``ctcguard run --probe-model``: the model of an unchanged script is run again before it is updated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctcguard import cli
from ctcguard.errors import SettingsError
from ctcguard.settings import load
from tests.plain import printed

SCRIPTS = Path(__file__).parent
FINDINGS = Path("findings.jsonl")


def guarded(*command: str) -> tuple[int, str, str]:
    program = [sys.executable, "-m", "ctcguard", "run", "--findings", str(FINDINGS), *command]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=100)
    return done.returncode, done.stdout, done.stderr


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FINDINGS.read_text(encoding="utf-8").splitlines()]


def test_a_reshape_is_found_before_the_first_update() -> None:
    code, out, err = guarded("--probe-model", str(SCRIPTS / "train_reshape.py"))
    assert (code, out) == (3, "")
    assert "CTC801 batch-leak · error · step 0" in err
    assert "Traceback" not in err
    finding, verdict, end = records()
    assert (finding["code"], finding["cause"]) == ("CTC801", "reshape-instead-of-transpose")
    assert finding["source"] == "Recogniser.forward"
    assert finding["call_site"].endswith("train_reshape.py:33")
    assert finding["fix"] == "write x.transpose(0, 1) instead of x.reshape(100, 8, 40)"
    assert verdict["action"] == "raise"
    assert (end["steps"], end["probe_model"].split(" times")[0]) == (0, "Recogniser ran 4")


def test_without_the_option_nobody_sees_it() -> None:
    code, out, err = guarded(str(SCRIPTS / "train_reshape.py"))
    assert (code, out.count("0x"), err) == (0, 3, "")
    (end,) = records()
    assert "probe_model" not in end


def test_a_right_script_is_left_alone() -> None:
    code, out, err = guarded("--probe-model", str(SCRIPTS / "train_right.py"), "--steps", "3")
    assert (code, err) == (0, "")
    assert out == printed(SCRIPTS / "train_right.py", "--steps", "3")
    (end,) = records()
    assert end["probe_model"] == "Sequential ran 2 times (4509 weights)"


@pytest.mark.parametrize(("options", "settings"), [(["--probe-model"], {"probe_model": True}), ([], {})])
def test_the_option(monkeypatch: pytest.MonkeyPatch, options: list[str], settings: dict[str, Any]) -> None:
    runs: list[Any] = []
    monkeypatch.setattr(cli, "check", lambda *wanted: None)
    monkeypatch.setattr(cli, "run", lambda *wanted: runs.append(wanted[1]))
    assert cli.main(["run", *options, "train.py", "--probe-model"]) == 0
    assert runs == [settings]


def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().probe_model is False
    assert load(probe_model=True).probe_model is True
    monkeypatch.setenv("CTCGUARD_PROBE_MODEL", "1")
    assert load().probe_model is True
    with pytest.raises(SettingsError, match="probe_model"):
        load(probe_model="perhaps")
