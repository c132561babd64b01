"""The table of who notices what: complete, and judged by one rule for every tool."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from benchmarks.detection import causes, environment, oracle, run, table
from benchmarks.detection.corpus import programs
from benchmarks.detection.observation import Alarm, Ending, Observation
from benchmarks.detection.tools import ALL, NAMED
from benchmarks.detection.tools._tool import Tool

CORPUS = programs()
EXPECTED = oracle.Expected("CTC301", "too-short", line=12)


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(run.JSON.read_text(encoding="utf-8"))
    return content


def test_every_pair_has_its_row(recorded: dict[str, Any]) -> None:
    rows = {
        name: (row["framework"], row["record"], row["expected"]["code"], row["expected"]["cause"], row["told"])
        for name, row in recorded["pairs"].items()
    }
    assert rows == {
        each.pair.name: (each.kind, each.pair.record, each.pair.expects.code, each.pair.expects.cause, [*each.told])
        for each in CORPUS
    }


@pytest.mark.parametrize("tool", ALL, ids=lambda tool: tool.name)
def test_every_tool_looked_at_every_pair_of_its_framework(recorded: dict[str, Any], tool: type[Tool]) -> None:
    looked = {name for name, row in recorded["pairs"].items() if tool.name in row["cells"]}
    due = {each.pair.name for each in CORPUS if each.kind in tool.folders}
    if tool.itself:  # minutes a pair: a sample may be all that was measured, and the page says of how many
        assert looked <= due
        assert len(looked) >= len(due) / run.SPREAD
    else:
        assert looked == due


def test_a_tool_that_takes_long_begins_with_a_sample() -> None:
    record: dict[str, Any] = {"runs": {}}
    names = [each.pair.name for batch in run.batches(NAMED["traincheck"], CORPUS, record) for each in batch]
    torch = [each.pair.name for each in CORPUS if each.kind in NAMED["traincheck"].folders]
    assert names[:2] == [torch[0], torch[run.SPREAD]]
    assert sorted(names) == sorted(torch)


def test_the_files_are_what_the_record_gives(
    recorded: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run.load()
    page = run.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(run, "JSON", tmp_path / "detection.json")
    monkeypatch.setattr(run, "PAGE", tmp_path / "detection.md")
    run.write(record, CORPUS)
    assert json.loads(run.JSON.read_text(encoding="utf-8")) == recorded
    assert run.PAGE.read_text(encoding="utf-8") == page


def test_every_cause_has_words() -> None:
    for each in CORPUS:
        re.compile(causes.words_for(each.pair.expects.code, each.pair.expects.cause))


def test_the_peers_are_pinned() -> None:
    lines = [line for line in environment.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert {line.partition("==")[0] for line in lines} >= set(environment.PACKAGES)
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_the_command_line() -> None:
    assert run.arguments([]).tools == list(NAMED)
    assert run.arguments([]).pairs == [each.pair.name for each in CORPUS]
    name = CORPUS[0].pair.name
    one = run.arguments(["--tools", "ctcguard", "--pairs", name, "--changed"])
    assert (one.tools, one.pairs, one.changed, one.judge) == (["ctcguard"], [name], True, False)


@pytest.mark.parametrize("line", [["--tools", "ctcgard"], ["--pairs", "label_beyond_hed"], ["--changed", "--judge"]])
def test_what_the_command_line_refuses(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.arguments(line)
    assert "usage" in capsys.readouterr().err


# The judgement: one tool and one pair.

QUIET = Observation()


def said(*alarms: Alarm, failure: str = "", ending: Ending | None = None) -> Observation:
    return Observation(alarms=list(alarms), count=len(alarms), failure=failure, ending=ending)


def cell(
    broken: Observation,
    fixed: Observation = QUIET,
    alone: Observation = QUIET,
    alone_fixed: Observation = QUIET,
    tool: str = "peer",
) -> oracle.Cell:
    runs = {"framework": {"broken": alone, "fixed": alone_fixed}, tool: {"broken": broken, "fixed": fixed}}
    return oracle.cell(tool, runs, EXPECTED)


LOSS = Alarm(2, "not finite", "loss is inf")
FRAMES = Alarm(3, "frames", "clip 7 has too few frames")
REFUSED = said(ending=Ending(1, "RuntimeError", "something is wrong"))


def test_silence() -> None:
    assert cell(QUIET) == oracle.Cell()


def test_the_first_alarm_counts_and_any_message_may_name_the_cause() -> None:
    assert cell(said(LOSS)) == oracle.Cell(noticed=2, forgiven=2, alerts=1)
    assert cell(said(LOSS, FRAMES)) == oracle.Cell(noticed=2, named=True, forgiven=2, alerts=2)


def test_a_traceback_that_shows_the_wrong_line_names_the_cause() -> None:
    assert cell(said(Alarm(0, "nan", "nan", lines=(30, 12)))).named
    assert not cell(said(Alarm(0, "nan", "nan", lines=(30, 13)))).named


def test_who_cries_wolf_is_not_believed() -> None:
    assert cell(said(LOSS, FRAMES), fixed=said(LOSS)) == oracle.Cell(cries_wolf=True, forgiven=3, alerts=2)
    assert cell(QUIET, fixed=said(LOSS)) == oracle.Cell(cries_wolf=True)


def test_what_the_framework_refuses_counts_for_every_tool() -> None:
    by_framework = oracle.Cell(noticed=1, by_framework=True, forgiven=1)
    assert cell(REFUSED, alone=REFUSED) == by_framework
    assert cell(said(failure="no module"), alone=REFUSED).noticed == 1
    assert cell(said(LOSS, ending=REFUSED.ending), alone=REFUSED).by_framework
    early = cell(said(Alarm(1, "not finite", "loss is inf"), ending=REFUSED.ending), alone=REFUSED)
    assert (early.noticed, early.by_framework) == (1, False)
    assert cell(REFUSED, alone=REFUSED, fixed=said(LOSS)) == oracle.Cell(1, True, cries_wolf=True, forgiven=1)


def test_what_both_programs_raise_is_no_refusal() -> None:
    assert cell(REFUSED, fixed=REFUSED, alone=REFUSED, alone_fixed=REFUSED) == oracle.Cell()


def test_an_exception_that_is_no_alarm_is_the_failure_of_the_tool() -> None:
    assert cell(REFUSED) == oracle.Cell(failure="RuntimeError: something is wrong")
    raised = Alarm(1, "spike", "Training spike detected in batch 1")
    by_raising = said(raised, ending=Ending(1, "TrainingSpikeException", raised.message))
    assert cell(by_raising) == oracle.Cell(noticed=1, forgiven=1, alerts=1)


def test_ctcguard_has_to_name_code_and_cause_in_its_first_verdict_besides() -> None:
    right = Alarm(0, "CTC301 too-short", "too few frames")
    other = Alarm(0, "CTC301 repeats", "too few frames")
    assert cell(said(right, other), tool="ctcguard").named
    assert not cell(said(other, right), tool="ctcguard").named
    assert not cell(said(Alarm(0, right.kind, "something is wrong")), tool="ctcguard").named


def test_what_ctcguard_is_told() -> None:
    told = {each.pair.name: each.told for each in CORPUS}
    assert told["torch/softmax_for_log_softmax"] == ()
    assert told["torch/space_as_blank"] == told["jax/space_is_class_zero"] == ("vocabulary",)
    assert told["torch/own_ctc_ignores_its_blank"] == ("own loss",)
    assert told["torch/reshape_for_transpose"] == ("probe_model",)
    assert {kind for kinds in told.values() for kind in kinds} == set(table.KINDS)


def test_the_summary_counts() -> None:
    cells = [
        cell(said(LOSS)),
        cell(said(FRAMES, LOSS)),
        cell(REFUSED, alone=REFUSED),
        cell(QUIET, fixed=said(LOSS)),
        cell(REFUSED),
        cell(QUIET),
    ]
    assert oracle.summary(cells) == {
        "pairs": 6,
        "noticed": 3,
        "by_framework": 1,
        "named": 1,
        "forgiven": 3,
        "cries_wolf": 1,
        "failed": 1,
        "median_step": 2,
        "alerts_per_noticed": 1.5,
        "most_alerts": 2,
    }


def test_an_observation_survives_being_written() -> None:
    observation = Observation([LOSS, FRAMES], 4, Ending(1, "ValueError", "", (3,)), 7)
    assert Observation.from_json(json.loads(json.dumps(observation.to_json()))) == observation
    assert QUIET.to_json() == {"steps": 0}


def test_of_one_kind_the_first_alarm_is_kept() -> None:
    observation = Observation()
    for step in range(3):
        observation.add(Alarm(step, "nan", f"nan in step {step}"))
    assert observation.alarms == [Alarm(0, "nan", "nan in step 0")]
    assert observation.count == 3
