"""The corpus is what it promises to be, and its harness lets nothing through."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.failures.pairs import (
    FOLDERS,
    HERE,
    Alarm,
    Pair,
    PairError,
    execute,
    files,
    fixed_twin,
    guarded,
    marked_lines,
    read,
    wrong_about,
)

PATHS = [path for folder in FOLDERS for path in files(folder)]
REPORTS = {report["id"]: report for report in map(json.loads, (HERE / "failures.jsonl").read_text().splitlines())}
OBSERVED = {"with ctcguard.watch() as guard:", "guard.observe("}


@pytest.fixture(params=PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def pair(request: pytest.FixtureRequest) -> Pair:
    return read(request.param)


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(PATHS) >= 60
    assert len({read(path).record for path in PATHS}) >= 40


def test_the_report_is_one_of_the_record(pair: Pair) -> None:
    assert pair.record in REPORTS
    assert set(pair.reports) <= set(REPORTS[pair.record]["urls"])


def test_the_twins_differ_in_one_line(pair: Pair) -> None:
    [mark] = marked_lines(pair.broken)
    broken, fixed = pair.broken.splitlines(), pair.fixed.splitlines()
    assert [number for number, (a, b) in enumerate(zip(broken, fixed, strict=True)) if a != b] == [mark]


def test_the_program_does_not_know_the_guard(pair: Pair) -> None:
    """Only a vocabulary or a loss of the user's own makes a program name it."""
    code = pair.broken.split('"""', 2)[2]
    lines = {line.strip() for line in code.splitlines() if re.search(r"ctcguard|\bguard\b", line)}
    vocabulary = {line for line in lines if re.search(r"= ctcguard.guard_step\(|with ctcguard.watch\(", line)}
    vocabulary = {line for line in vocabulary if "vocabulary=" in line}
    assert lines - vocabulary in (set(), {"import ctcguard"}, {*OBSERVED, "import ctcguard"})


def test_settings_are_for_rules_that_need_patience_or_must_be_asked_for(pair: Pair) -> None:
    assert set(pair.settings) <= {"thresholds", "probe_model"}


# The harness: what it would let through, if anything.

HEADER = '"""A mistake.\n\nreport: https://example.org/1\nrecord: one\nexpects: CTC402 raw-logits at step 0\n"""\n'


@pytest.mark.parametrize(
    ("line", "twin"),
    [
        ("    a = 1  # right: a = 2", "    a = 2"),
        ("  # right: a = 2  # as the paper says", "  a = 2  # as the paper says"),
        ("  a = 1  # right:", ""),
    ],
)
def test_a_twin_is_made_from_its_mark(line: str, twin: str) -> None:
    assert fixed_twin(f"first\n{line}\nlast\n") == f"first\n{twin}\nlast\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEADER + "a = 1\n", "0 lines are marked"),
        (HEADER + "a = f(\n    1\n)  # right: a = f(2)\n", "the fixed program does not parse"),
        (HEADER + "a = 1  # right: a = 2\nb = 1  # right: b = 2\n", "2 lines are marked"),
        ("a = 1  # right: a = 2\n", "does not begin with a docstring"),
        (HEADER.replace("record: one\n", "") + "a  # right: b\n", "record: is there 0 times"),
        (HEADER.replace("report: https://example.org/1\n", "") + "a  # right: b\n", "report: is missing"),
        (HEADER.replace("at step 0", "soon") + "a  # right: b\n", "expects: is written"),
        (HEADER.replace("record: one", "record: one\nalso: CTC401") + "a  # right: b\n", "also: is written"),
        (HEADER.replace("record: one", "record: one\ncause: unknown") + "a  # right: b\n", "no field of the header"),
    ],
)
def test_a_file_that_is_no_pair_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "pair.py").write_text(text)
    with pytest.raises(PairError, match=f"pair.py: .*{complaint}"):
        read(tmp_path / "pair.py")


SAID = Alarm("CTC402", "raw-logits", 0)


@pytest.mark.parametrize(
    ("found", "complaints"),
    [
        ([SAID], 0),
        ([SAID, Alarm("CTC301", "too-short", 3)], 0),
        ([], 1),
        ([Alarm("CTC401", "raw-logits", 0)], 1),
        ([Alarm("CTC402", "probabilities", 0)], 1),
        ([Alarm("CTC402", "raw-logits", 1)], 1),
        ([Alarm("CTC402", "raw-logits", 0, "setup")], 1),
        ([SAID, Alarm("CTC501", "unnormalised", 0)], 1),
        ([Alarm("CTC501", "unnormalised", 0), SAID], 2),
    ],
)
def test_whatever_is_not_the_right_verdict_is_a_complaint(tmp_path: Path, found: list[Alarm], complaints: int) -> None:
    announced = [alarm for alarm in found if alarm.code == "CTC301"]
    also = "".join(f"also: {alarm.code} {alarm.cause}: for a reason\n" for alarm in announced)
    (tmp_path / "pair.py").write_text(HEADER.replace("expects", f"{also}expects") + "a  # right: b\n")
    assert len(wrong_about(read(tmp_path / "pair.py"), found)) == complaints


def test_what_is_announced_has_to_be_said(tmp_path: Path) -> None:
    also = "also: CTC301 too-short: for a reason\nexpects"
    (tmp_path / "pair.py").write_text(HEADER.replace("expects", also) + "a  # right: b\n")
    assert len(wrong_about(read(tmp_path / "pair.py"), [SAID])) == 1


def test_a_program_runs_as_main_and_leaves_nothing_behind(tmp_path: Path) -> None:
    main, arguments = sys.modules["__main__"], sys.argv
    source = "import sys\nassert __name__ == '__main__'\nassert sys.modules[__name__].__file__ == sys.argv[0]\n"
    with guarded(tmp_path, {}):
        execute(source, Path("train.py"))
        with pytest.raises(ZeroDivisionError) as raised:
            execute("\n\n1 / 0\n", Path("train.py"))
    assert str(raised.traceback[-1].path) == "train.py"
    assert raised.traceback[-1].lineno == 2  # counted from 0
    assert (sys.modules["__main__"], sys.argv) == (main, arguments)
