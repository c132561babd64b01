"""Each cause is said once, in every sink; a sink's fault stays in the guard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ctcguard.errors import CTCStop, CTCVerdictError
from ctcguard.finding import Finding, Severity
from ctcguard.reporter import WRITTEN_PER_CAUSE, Reporter
from ctcguard.settings import load
from ctcguard.sinks.jsonl import JsonLines
from ctcguard.verdict import Verdict


class Listening:
    """A sink that remembers; it fails at the methods named."""

    name = "listening"

    def __init__(self, *fails: str) -> None:
        self.fails = fails
        self.heard: list[tuple[str, Any]] = []

    def _hear(self, method: str, value: Any) -> None:
        self.heard.append((method, value))
        if method in self.fails:
            raise OSError("no route to host")

    def finding(self, finding: Finding) -> None:
        self._hear("finding", finding.code)

    def verdict(self, verdict: Verdict) -> None:
        self._hear("verdict", verdict.code)

    def readings(self, scalars: Mapping[str, float], step: int) -> None:
        self._hear("readings", step)

    def end(self, record: Mapping[str, Any]) -> None:
        self._hear("end", record)


def found(
    code: str,
    cause: str = "why",
    severity: Severity = Severity.ERROR,
    explains: tuple[str, ...] = (),
    affected: Any = (),
) -> Finding:
    return Finding(
        code=code, name="a-name", severity=severity, cause=cause, message="what", fix="do",
        explains=explains, affected=frozenset(affected),
    )  # fmt: skip


def reporter(*sinks: Any, **settings: Any) -> Reporter:
    return Reporter(load(**settings), sinks)


def test_a_cause_is_announced_once_and_raised_each_time() -> None:
    sink = Listening()
    subject = reporter(sink)
    for _ in range(3):
        with pytest.raises(CTCVerdictError, match="CTC402"):
            subject.report([found("CTC402")])
    assert [heard for heard in sink.heard if heard[0] == "verdict"] == [("verdict", "CTC402")]
    assert len([heard for heard in sink.heard if heard[0] == "finding"]) == 3


def test_a_cause_that_becomes_worse_is_announced_again() -> None:
    sink = Listening()
    reporter = Reporter(load(on_error="alert"), [sink])
    for severity in (Severity.INFORMATION, Severity.INFORMATION, Severity.ERROR, Severity.WARNING, Severity.ERROR):
        reporter.report([found("CTC402", severity=severity)])
    assert [verdict.action for verdict in reporter.verdicts] == ["log", "alert"]
    assert [method for method, _ in sink.heard].count("verdict") == 1


def test_another_cause_of_the_same_code_is_announced_too() -> None:
    sink = Listening()
    subject = reporter(sink, on_error="alert")
    subject.report([found("CTC402", "raw-logits")])
    subject.report([found("CTC402", "probabilities")])
    assert len([heard for heard in sink.heard if heard[0] == "verdict"]) == 2


def test_a_symptom_of_an_earlier_finding_is_written_and_not_announced() -> None:
    sink = Listening()
    subject = reporter(sink, on_error="alert")
    root = found("CTC301", explains=("CTC601",), affected={1})
    subject.report([root])
    subject.report([found("CTC601")], before=[root])
    assert sink.heard == [("finding", "CTC301"), ("verdict", "CTC301"), ("finding", "CTC601")]


def test_findings_reported_early_are_written_once_and_still_explain() -> None:
    sink = Listening()
    subject = reporter(sink, on_error="alert")
    root = found("CTC203", explains=("CTC501",))
    subject.report([root])
    subject.report([root, found("CTC501")], written=1)
    assert [heard for heard in sink.heard if heard[0] == "finding"] == [("finding", "CTC203"), ("finding", "CTC501")]
    assert [heard for heard in sink.heard if heard[0] == "verdict"] == [("verdict", "CTC203")]


def test_the_aftermath_of_a_poisoned_update_is_no_news() -> None:
    sink = Listening()
    subject = reporter(sink, on_error="alert")
    subject.report([found("CTC601")])
    subject.report([found("CTC403", affected={0, 1})])
    assert [heard for heard in sink.heard if heard[0] == "verdict"] == [("verdict", "CTC601")]


@pytest.mark.parametrize(
    ("action", "raised"), [("raise", CTCVerdictError), ("stop", CTCStop), ("alert", None), ("log", None)]
)
def test_reactions(action: str, raised: type[Exception] | None) -> None:
    sink = Listening()
    subject = reporter(sink, on_error=action)
    if raised:
        with pytest.raises(raised):
            subject.report([found("CTC301")])
    else:
        subject.report([found("CTC301")])
    assert (("verdict", "CTC301") in sink.heard) is (action != "log")
    assert (subject.stop is not None) is (action == "stop")


def test_a_warning_with_an_error_among_its_symptoms_is_treated_as_the_error() -> None:
    with pytest.raises(CTCVerdictError):
        reporter(on_warning="log").report(
            [found("CTC301", severity=Severity.WARNING, explains=("CTC502",)), found("CTC502")]
        )


def test_information_is_only_written() -> None:
    sink = Listening()
    subject = reporter(sink, JsonLines(Path("findings.jsonl")))
    subject.report([found("CTC204", severity=Severity.INFORMATION)])
    assert sink.heard == [("finding", "CTC204")]
    kinds = [json.loads(line)["type"] for line in Path("findings.jsonl").read_text().splitlines()]
    assert kinds == ["finding", "verdict"]


def test_an_alert_that_cannot_be_delivered_is_kept_and_said() -> None:
    broken, file, other = Listening("verdict"), JsonLines(Path("findings.jsonl")), Listening()
    other.name = "other"
    subject = reporter(file, broken, other, on_warning="raise", on_error="alert")
    subject.report([found("CTC301")])
    assert [finding.code for finding in subject.findings] == ["CTC301", "CTC903"]
    assert ("verdict", "CTC903") in other.heard
    assert ("verdict", "CTC903") not in broken.heard
    assert "no route to host" in Path("findings.jsonl").read_text()


@pytest.mark.parametrize("method", ["finding", "end", "readings"])
def test_a_broken_sink_is_said_once_and_not_asked_again(method: str) -> None:
    broken = Listening(method)
    subject = reporter(broken, on_error="log")
    for step in range(3):
        subject.tell("readings", {}, step)
        subject.tell("end", {})
        subject.report([found("CTC301")])
    assert [finding.code for finding in subject.findings if finding.code[3] == "9"] == ["CTC902"]
    assert len([heard for heard in broken.heard if heard[0] == method]) == 1


def test_a_disk_that_is_gone_does_not_break_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    sink = Listening()
    subject = reporter(JsonLines(tmp_path / "file" / "findings.jsonl"), sink, on_error="alert")
    subject.report([found("CTC301")])
    assert ("verdict", "CTC301") in sink.heard
    assert ("verdict", "CTC902") in sink.heard


def test_the_file_is_bounded_and_the_count_is_not() -> None:
    sink = Listening()
    subject = reporter(sink, on_error="log")
    for _ in range(WRITTEN_PER_CAUSE + 20):
        subject.report([found("CTC301")])
    assert subject.counts["CTC301", "why"] == WRITTEN_PER_CAUSE + 20
    assert len(subject.findings) == WRITTEN_PER_CAUSE
    assert len(sink.heard) == WRITTEN_PER_CAUSE
