"""A run directory, read back: what is there is told, what is torn is said, what is no run is refused."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from pathlib import Path

import pytest

from ctcguard.errors import ReportError
from ctcguard.finding import Finding, Severity
from ctcguard.report.story import read_story, save


def runs() -> object:
    spec = importlib.util.spec_from_file_location("conftest", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


write_run, a_finding = (getattr(runs(), name) for name in ("write_run", "a_finding"))
ROWS = [{"step": 0, "loss_max_nats": 1.5}, {"step": 1, "loss_max_nats": "Infinity"}]


def test_a_broken_run_is_read_whole(broken: Path) -> None:
    story = read_story(broken)
    assert [finding.code for finding in story.findings] == ["CTC401", "CTC402", "CTC501"]
    (verdict,) = story.verdicts
    assert (verdict.code, verdict.cause, verdict.action) == ("CTC402", "probabilities", "raise")
    assert [finding.code for finding in verdict.also] == ["CTC401", "CTC501"]
    assert {"CTC403"} <= set(verdict.ruled_out)
    assert story.end is not None
    assert [path.name for path, _ in story.records] == ["6-CTC402.safetensors"]
    assert [row["step"] for row in story.rows] == list(range(7))
    assert story.notes == ()


def test_numbers_that_are_not_finite_come_back() -> None:
    story = read_story(write_run(Path("run"), [], ROWS))
    assert story.rows[1]["loss_max_nats"] == math.inf


def test_the_worst_verdict_comes_first() -> None:
    findings = [a_finding(0), a_finding(3, Severity.ERROR, code="CTC402"), a_finding(4, Severity.ERROR, code="CTC501")]
    story = read_story(write_run(Path("run"), findings, []))
    assert [verdict.code for verdict in story.worst()] == ["CTC402", "CTC501", "CTC301"]


@pytest.mark.parametrize("end", [True, False])
def test_a_run_without_a_last_line_has_no_end(end: bool) -> None:
    assert (read_story(write_run(Path("run"), [a_finding(0)], [], end=end)).end is None) != end


def test_torn_and_foreign_lines_are_counted_and_the_rest_is_told() -> None:
    folder = write_run(Path("run"), [a_finding(2)], ROWS)
    with (folder / "findings.jsonl").open("a", encoding="utf-8") as file:
        file.write(
            '{"type": "finding", "code"\n[1, 2]\n'
            '{"type": "verdict", "code": "CTC999", "cause": "x", "step": 1, "also": []}\n'
        )
    (folder / "readings.jsonl").write_text(json.dumps(ROWS[0]) + "\nnull\n{", encoding="utf-8")
    (folder / "1-CTC301.safetensors").write_bytes(b"no record")
    story = read_story(folder)
    assert len(story.findings) == 1
    assert [row["step"] for row in story.rows] == [0]
    torn, foreign, unread = story.notes
    assert torn == "3 lines of findings.jsonl could not be read"
    assert "1-CTC301.safetensors is no record" in foreign
    assert unread == "2 lines of readings.jsonl could not be read"


def test_a_transcript_with_line_separators_is_one_line() -> None:
    text = "one\u2028two\x85three\x0bfour"
    story = read_story(write_run(Path("run"), [a_finding(0, message=text)], []))
    assert story.findings[0].message == text
    assert story.notes == ()


def test_the_processes_of_a_job_are_read_together() -> None:
    write_run(Path("run/rank-0"), [], [])
    write_run(Path("run/rank-1"), [a_finding(5, rank=1)], ROWS)
    write_run(Path("run/rank-10"), [a_finding(5, rank=10)], [])
    story = read_story(Path("run"))
    assert story.ranks == 3
    assert [finding.rank for finding in story.findings] == [1, 10]
    assert story.rank == "rank-1"
    assert story.verdicts[0].headline().endswith("rank 1 of 3")


def test_where_findings_went_elsewhere_the_records_tell_them(broken: Path) -> None:
    shutil.copytree(broken, "run")
    Path("run/findings.jsonl").unlink()
    story = read_story(Path("run"))
    assert [verdict.code for verdict in story.verdicts] == ["CTC402"]
    assert {finding.code for finding in story.findings} == {"CTC401", "CTC402", "CTC501"}
    assert len(story.counts) == len(story.findings)


def test_a_folder_without_a_run_is_refused_in_one_line() -> None:
    with pytest.raises(ReportError, match=r"nowhere is no directory: name the run directory"):
        read_story(Path("nowhere"))
    Path("out").mkdir()
    with pytest.raises(ReportError, match=r"there is no findings.jsonl in out: name the run directory"):
        read_story(Path("out"))
    write_run(Path("out/ctcguard"), [], [])
    with pytest.raises(ReportError, match=r"there is no findings.jsonl in out; did you mean out/ctcguard\?"):
        read_story(Path("out"))


def test_a_page_that_cannot_be_written_leaves_nothing() -> None:
    Path("page.html").mkdir()
    Path("page.html/file").touch()
    with pytest.raises(ReportError, match=r"cannot write page.html: "):
        save("text", Path("page.html"))
    assert [path.name for path in Path().iterdir()] == ["page.html"]


def test_a_finding_of_a_newer_version_is_said_to_be_unread() -> None:
    folder = write_run(Path("run"), [], [])
    line = Finding(code="CTC999", name="n", severity=Severity.ERROR, cause="c", message="m", fix="f").record()
    (folder / "findings.jsonl").write_text(json.dumps(line | {"new field": 1}) + "\n", encoding="utf-8")
    assert read_story(folder).notes == ("1 lines of findings.jsonl could not be read",)
