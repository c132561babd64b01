"""Every case ends as it should, and a case that does not is seen to fail."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import pytest
import torch
from rich.console import Console

import ctcguard.demo
from ctcguard.demo import broken, cases, narrow_head, run_demo
from ctcguard.demo.broken import Caught, Expected
from ctcguard.demo.screen import ProgressBar, Screen, quiet
from ctcguard.demo.training import Records, Stage, Weights
from ctcguard.errors import CTCVerdictError, MissingExtraError, SettingsError


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(Screen(Console(file=io.StringIO(), width=80)), tmp_path, quick=True)


def shown(stage: Stage) -> str:
    file = stage.screen.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


FOUND = {"softmax": "CTC402", "narrow-head": "CTC101", "short-clip": "CTC301", "free-labels": "CTC201"}


@pytest.mark.parametrize("name", FOUND)
def test_the_planted_mistake_is_found(name: str, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        assert cases.CASES[name].run(stage)
    assert "  ok  " in shown(stage)
    panel = capsys.readouterr()
    assert panel.out == ""
    assert FOUND[name] in panel.err


def test_the_healthy_run_has_no_finding(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        assert cases.CASES["healthy"].run(stage)
    text = shown(stage)
    assert "0 findings in 24 CTC calls" in text
    assert "character error rate" in text
    assert capsys.readouterr() == ("", "")
    [recorded] = stage.directory.glob("wandb/offline-run-*/run-*.wandb")
    assert b"ctcguard/" in recorded.read_bytes()


def test_a_mistake_that_was_not_made_fails_the_case(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow_head, "WIDTH", narrow_head.WIDTH + 2)
    with quiet():
        assert not narrow_head.run(stage)
    text = " ".join(shown(stage).split())
    assert "FAILED expected one verdict, CTC101, and there were 0 []; the training was not stopped" in text
    assert "weights changed" in text


VERDICT = {"code": "CTC402", "cause": "probabilities", "step": 0, "also": ["CTC401", "CTC501"]}
EXPECTED = Expected("CTC402", "probabilities", also=("CTC401", "CTC501"))


def test_the_expected_verdict_differs_in_nothing() -> None:
    assert EXPECTED.differs([VERDICT]) == ""


@pytest.mark.parametrize(
    ("verdicts", "message"),
    [
        ([], "there were 0"),
        ([VERDICT, VERDICT], "there were 2"),
        ([VERDICT | {"code": "CTC401"}], "code must be 'CTC402' and is 'CTC401'"),
        ([VERDICT | {"cause": "raw-logits"}], "cause must be 'probabilities' and is 'raw-logits'"),
        ([VERDICT | {"step": 1}], "step must be 0 and is 1"),
        ([VERDICT | {"also": ["CTC401"]}], "CTC501 must be among the symptoms"),
    ],
)
def test_every_difference_is_named(verdicts: list[dict[str, object]], message: str) -> None:
    assert message in EXPECTED.differs(verdicts)


def test_only_a_verdict_is_caught() -> None:
    with Caught() as caught:
        pass
    assert not caught.stopped
    with pytest.raises(ZeroDivisionError), Caught():
        raise ZeroDivisionError
    with Caught() as caught:
        raise CTCVerdictError.__new__(CTCVerdictError)
    assert caught.stopped


def test_a_changed_weight_is_noticed() -> None:
    model = torch.nn.Linear(2, 2)
    weights = Weights(model)
    assert weights.count == 2
    assert weights.untouched()
    with torch.no_grad():
        model.bias[1] += 1e-6
    assert not weights.untouched()


def test_records_are_sorted_by_type(tmp_path: Path) -> None:
    lines = [{"type": "finding", "code": "CTC301"}, {"type": "verdict", "code": "CTC301"}, {"type": "end", "steps": 3}]
    (tmp_path / "findings.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    assert Records.of(tmp_path) == Records([lines[0]], [lines[1]], lines[2])


def test_where_there_is_no_terminal_the_bar_is_four_lines() -> None:
    screen = Screen(Console(file=io.StringIO(), width=80))
    bar = ProgressBar(screen, steps=10)
    for step in range(1, 11):
        bar.moved(step)
        bar.logged(step, 1 / step)
    bar.close()
    assert isinstance(screen.console.file, io.StringIO)
    lines = screen.console.file.getvalue().splitlines()
    assert [line.split()[2] for line in lines] == ["3", "5", "8", "10"]


@pytest.mark.parametrize("results", [[True, True], [True, False]], ids=["all good", "one failed"])
def test_the_exit_code_is_of_the_cases(
    results: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    played = {str(i): cases.Case(f"case {i}", lambda _, ok=ok: ok) for i, ok in enumerate(results)}
    monkeypatch.setattr(cases, "CASES", played)
    monkeypatch.setattr(ctcguard.demo, "CASES", tuple(played))
    assert run_demo(quick=True) == (0 if all(results) else 1)
    shown = capsys.readouterr().out
    assert ("2 of 2 cases ended as they should" if all(results) else "failed: 1") in shown
    assert [line.split() for line in shown.splitlines() if line.split()[:1] in (["ok"], ["FAILED"])] == [
        ["ok" if ok else "FAILED", str(i)] for i, ok in enumerate(results)
    ]


def test_the_demo_ends_by_naming_a_report_that_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "400")
    assert run_demo("softmax", quick=True) == 0
    shown = capsys.readouterr().out
    assert "ok  softmax  CTC402 probabilities, step 0" in shown
    (page,) = [line.split()[1] for line in shown.splitlines() if line.startswith("  report")]
    assert "Training was stopped at step 0" in Path(page).read_text(encoding="utf-8")


def test_without_the_extra_the_demo_names_its_folder(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cases, "missing", lambda: ["plotly"])
    monkeypatch.setenv("COLUMNS", "400")
    (stage.directory / "0-CTC402.safetensors").touch()
    assert cases.reports([stage.directory]) == []
    monkeypatch.setattr(tempfile, "tempdir", str(stage.directory))
    monkeypatch.setattr(cases, "CASES", {"0": cases.Case("case 0", lambda _: True)})
    cases.play(["0"], quick=True)
    shown = " ".join(capsys.readouterr().out.split())
    assert "ctcguard-demo-" in shown
    assert "the report needs plotly: pip install 'ctcguard[report]'" in shown


def test_the_names_of_the_cases_are_those_that_are_played() -> None:
    assert tuple(cases.CASES) == ctcguard.demo.CASES
    assert all(case.title.startswith(f"{name}: ") for name, case in cases.CASES.items())


def test_an_unknown_case_is_one_clear_line() -> None:
    with pytest.raises(SettingsError, match="'softmx' is no case of the demo; the cases are: healthy, softmax"):
        run_demo("softmx")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctcguard.demo, "_REQUIRED", ("torch", "not_installed_here"))
    with pytest.raises(MissingExtraError, match=r"the demo needs not_installed_here: pip install 'ctcguard\[demo\]'"):
        run_demo()


def test_conclude_says_what_went_wrong(stage: Stage) -> None:
    assert not broken.conclude(stage.screen, Records([], [VERDICT], {}), EXPECTED, ["weights changed"], "fine")
    assert "FAILED" in shown(stage)
    assert "weights changed" in shown(stage)
