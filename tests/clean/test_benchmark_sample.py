"""A sample of benchmarks/clean, healthy trainings; that an alarm would be found; and that the record is up to date."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.clean import run as command
from benchmarks.clean.corpus import ARMS, GUARDING, Family, NotHealthyError, Record, Run, Setting, play
from benchmarks.clean.families.architectures import OVER_PADDING
from benchmarks.clean.report import Figures, as_markdown, in_words, summary
from benchmarks.clean.task import Speech
from ctcguard import Severity
from ctcguard.rules import ALL

SETTINGS = {f"{setting.family}/{setting.name}": setting for setting in command.corpus()}
SAMPLE = {
    "precision/float16 autocast, own mean over time": 100,
    "normalisation/factorised: a blank gate, then the symbols": 101,
    "lengths/as many utterances as fit into 150 frames": 103,
    "labels/captchas of six digits, batches of 2": 104,
    "labels/one wake word, half of the clips is background": 2,
    "labels/some unknown symbols, batches of 80": 100,
    "schedules/GradScaler, float16, some overflows": 118,
    "objectives/minimum risk": 107,
    "architectures/CNN-LSTM, lines of one width, full lengths": 108,
    "dynamics/restarts at a rate that hurts": 110,
    "trainer/Parakeet, bf16, one cycle": 111,
    "trainer/Wav2Vec2-BERT, silent clips": 116,
    "jax/Flax, a TrainState, dropout": 112,
    "jax/padded on the left, to a static shape": 102,
    "jax/Flax nnx, a GRU, padded on the left, to a static shape": 105,
    "probed/transformer": 113,
    "probed/convolutions, stride 4, group norm over valid frames": 101,
}


@pytest.mark.parametrize("title", SAMPLE)
def test_a_healthy_training_raises_no_alarm(title: str) -> None:
    record = play(Run(SETTINGS[title], SAMPLE[title]))
    assert record.alarms() == []
    assert record.steps >= 50
    assert record.calls >= record.steps


def test_the_corpus_is_large_and_covers_every_integration() -> None:
    runs = [run for setting in SETTINGS.values() for run in setting.runs()]
    assert len({run.title() for run in runs}) == len(runs) >= 200
    assert {run.setting.framework for run in runs} == set(GUARDING)
    for framework in GUARDING:
        assert {run.arm for run in runs if run.setting.framework == framework} == set(range(len(ARMS)))


# ------------------------------------------------------------------------------------------------- the record, as kept

HERE = Path(command.__file__).parent
Written = dict[str, Any]


def written() -> Written:
    read: Written = json.loads((HERE / "clean.json").read_text(encoding="utf-8"))
    return read


def outdated(record: Written) -> set[str]:
    """What in a record is not what the corpus and the rules are now, or not the sum of its rows."""
    rows = record["records"]
    now = {
        "records": [run.title() for setting in SETTINGS.values() for run in setting.runs()],
        "rules": [rule.code for rule in ALL],
        "steps": sum(row["steps"] for row in rows),
        "with_errors": sum(bool(row["error"]) for row in rows),
        "with_warnings": sum(bool(row["warning"]) for row in rows),
    }
    then = record | {"records": [row["run"] for row in rows]}
    return {name for name, value in now.items() if then[name] != value}


def test_the_record_is_up_to_date_and_without_an_alarm() -> None:
    record = written()
    assert outdated(record) == set(), f"run {record['command']}"
    assert (record["with_errors"], record["with_warnings"]) == (0, 0)
    assert record["command"] in str(command.__doc__)
    figures = Figures(**{field.name: record[field.name] for field in fields(Figures)})
    assert in_words(figures) in (HERE / "clean.md").read_text(encoding="utf-8").split("\n\n")


def test_twin_an_outdated_record_is_seen() -> None:
    record = written()
    assert outdated(record | {"rules": record["rules"][:-1]}) == {"rules"}
    assert outdated(record | {"records": record["records"][1:]}) == {"records", "steps"}
    alarmed = record["records"][0] | {"warning": ["CTC206 one-transcript"]}
    assert outdated(record | {"records": [alarmed, *record["records"][1:]]}) == {"with_warnings"}


# ------------------------------------------------------------------------------------------- that it can find something


@pytest.mark.parametrize("seed", range(4))
def test_a_norm_over_padding_is_told_where_the_model_is_probed(seed: int) -> None:
    setting = replace(SETTINGS[f"architectures/{OVER_PADDING}"], options={"probe_model": True})
    (finding,) = play(Run(setting, seed)).findings
    assert (finding.code, finding.cause) == ("CTC802", "normalisation-over-padding")
    changed = re.search(r"(\d+) of \d+ greedy decodings change", finding.message)
    assert changed is not None
    assert finding.severity is (Severity.WARNING if int(changed[1]) else Severity.INFORMATION)
    assert (finding.severity is Severity.WARNING) == (seed > 0)


broken = Family("broken")


@broken()
def raw_logits(seed: int) -> Iterator[float]:
    lab = Speech(seed)
    for batch in lab.batches(60):
        loss = lab.ctc(lab.logits(batch.features), batch)
        lab.update(loss)
        yield loss.item()


@broken()
def too_short(seed: int) -> Iterator[float]:
    yield from (1.0 for _ in range(49))


@broken()
def loss_is_nan(seed: int) -> Iterator[float]:
    yield from (math.nan for _ in range(60))


RAW_LOGITS, TOO_SHORT, NAN = broken.settings


def test_an_alarm_stops_a_run_by_default_and_is_counted() -> None:
    record = play(Run(RAW_LOGITS, 0))
    assert record.steps == 0
    assert [finding.code for finding in record.of(Severity.ERROR)][:2] == ["CTC401", "CTC402"]


def test_an_alarm_is_counted_once_a_run_when_nothing_stops_it() -> None:
    record = play(Run(RAW_LOGITS, 1))
    assert record.steps == 60
    assert record.counts["CTC402"] == 60
    figures = summary("command", [record, play(Run(SETTINGS["schedules/one cycle"], 0))])
    assert (figures.runs, figures.with_errors, figures.with_warnings) == (2, 1, 0)
    assert "CTC402" in as_markdown(figures, [record]).split("## False alarms")[1]


@pytest.mark.parametrize("setting", [TOO_SHORT, NAN])
def test_a_training_that_is_broken_itself_is_no_proof(setting: Setting) -> None:
    with pytest.raises(NotHealthyError, match=setting.name):
        play(Run(setting, 0))


def test_the_command_writes_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "precision/float32", "--sample", "2", "--json", "a.json", "--markdown", "a.md"]) == 0
    assert "2 runs of 2 settings" in capsys.readouterr().out
    written = json.loads(Path("a.json").read_text())
    assert written["command"].endswith("--only precision/float32 --sample 2 --json a.json --markdown a.md")
    assert [row["steps"] for row in written["records"]] == [60, 60]
    assert "| precision | torch loop | 2 | 2 |" in Path("a.md").read_text()


def test_the_command_fails_at_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[Record] = [play(Run(RAW_LOGITS, 0))]
    monkeypatch.setattr(command, "play", lambda run: records[0])
    assert command.main(["--only", "precision/float32, mean/0"]) == 1
