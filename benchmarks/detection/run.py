"""Which step, who notices, who names the cause: every pair of tests/failures under every tool.

    python benchmarks/detection/run.py                       everything; hours, nearly all of them TrainCheck's
    python benchmarks/detection/run.py --tools ctcguard      one column anew, the others stay
    python benchmarks/detection/run.py --pairs torch/blank_beyond_the_head   one pair, by its name
    python benchmarks/detection/run.py --changed             what was never measured, or whose programs have changed
    python benchmarks/detection/run.py --judge               nothing is run: judge the recorded alarms again

Writes detection.json (what every tool said of every program) and detection.md (what is made of it) beside this file.
ctcguard runs in the environment of this interpreter; the others in one of their own, which is made of requirements.txt
in build/detection when it is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.detection import environment, oracle, table  # noqa: E402 - after the path
from benchmarks.detection.corpus import Program, programs  # noqa: E402
from benchmarks.detection.observation import Observation  # noqa: E402
from benchmarks.detection.tools import ALL, NAMED  # noqa: E402
from benchmarks.detection.tools._tool import Tool  # noqa: E402
from tests.failures import pairs  # noqa: E402

JSON, PAGE = HERE / "detection.json", HERE / "detection.md"
SCHEMA = 1
BATCH = 24
"""So many pairs go to one process: what is lost if it has to be ended."""
SPREAD = 8
"""Of tools that take long, every so many-th pair comes first: wherever it ends, what was measured is a sample."""


def arguments(line: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--tools", nargs="+", choices=NAMED, default=list(NAMED), metavar="TOOL", help=", ".join(NAMED))
    names = [each.pair.name for each in programs()]
    parser.add_argument("--pairs", nargs="+", choices=names, default=names, metavar="PAIR", help="only these")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--changed", action="store_true", help="only what is missing, or whose programs have changed")
    what.add_argument("--judge", action="store_true", help="run nothing; write both files from what is recorded")
    parser.add_argument("--peers", type=Path, default=ROOT / "build" / "detection", help="their environment")
    return parser.parse_args(line)


def main() -> None:
    """Run the tools, one process at a time, and write the files after each batch."""
    options = arguments()
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(pairs.HERE, copy, dirs_exist_ok=True)
        chosen = [each for each in programs(Path(copy)) if each.pair.name in options.pairs]
        for tool in [] if options.judge else [NAMED[name] for name in options.tools]:
            run(tool, chosen, options)
    record, corpus = load(), programs()
    write(record, corpus)
    print(table.short(judged(record, corpus)))


def run(tool: type[Tool], corpus: list[Program], options: argparse.Namespace) -> None:
    """Run one tool on all pairs of its frameworks, and record what it says."""
    python, installed = environment.interpreter(tool, options.peers)
    for batch in batches(tool, corpus, load() if options.changed else {"runs": {}}):
        print(f"{tool.name}: {len(batch)} × {batch[0].kind}, from {batch[0].pair.name}", flush=True)
        found = look(tool, batch, python)
        record = load()  # anew: another process may have written while this one ran
        record["versions"] |= installed
        for name, runs in found.items():
            record["runs"].setdefault(name, {})[tool.name] = runs
        write(record, programs())


def load() -> dict[str, Any]:
    """What was recorded so far."""
    if JSON.exists():
        recorded: dict[str, Any] = json.loads(JSON.read_text(encoding="utf-8"))
        return {
            "versions": recorded["versions"],
            "runs": {name: row["runs"] for name, row in recorded["pairs"].items()},
        }
    return {"versions": {}, "runs": {}}


def batches(tool: type[Tool], corpus: list[Program], record: dict[str, Any]) -> Iterator[list[Program]]:
    """What one process looks at: some pairs of one folder, or, for tools that take long, one pair."""
    pairs_of = {folder: [each for each in corpus if each.kind == folder] for folder in tool.folders}
    if tool.itself:
        all_of_them = [each for folder in tool.folders for each in pairs_of[folder]]
        pairs_of = {"all": [each for first in range(SPREAD) for each in all_of_them[first::SPREAD]]}
    size = 1 if tool.itself else BATCH
    for group in pairs_of.values():
        due = [each for each in group if not current(record, each, tool.name)]
        yield from (due[start : start + size] for start in range(0, len(due), size))


def current(record: dict[str, Any], program: Program, tool: str) -> bool:
    """Whether what was recorded is of the programs as they are now."""
    runs = record["runs"].get(program.pair.name, {}).get(tool, {})
    return bool(runs) and runs["digest"] == program.digest


def look(tool: type[Tool], batch: list[Program], python: Path) -> dict[str, Any]:
    """Have a process of the right environment run the programs under the tool."""
    twins = ("both",) if tool.itself else ("broken", "fixed")
    jobs = [{"path": str(each.pair.path), "kind": each.kind, "twin": twin} for each in batch for twin in twins]
    personal = {name for name in os.environ if name.startswith(("CTCGUARD_", "WANDB_", "PYTHON"))}
    inherited = {name: value for name, value in os.environ.items() if name not in personal}
    with tempfile.TemporaryDirectory() as home:
        worker = subprocess.run(
            [python, HERE / "worker.py", tool.name],
            input="\n".join(map(json.dumps, jobs)),
            env=inherited | environment.QUIET | {"HOME": home},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, Any] = {}
    for answer in map(json.loads, worker.stdout.splitlines()):
        name = next(each.pair.name for each in batch if str(each.pair.path) == answer["path"])
        found.setdefault(name, {"digest": answer["digest"]})[answer["twin"]] = answer["observation"]
    return found


def judged(record: dict[str, Any], corpus: list[Program]) -> table.Cells:
    """A cell for each pair and each tool that was run on the programs as they are now."""
    cells: table.Cells = {}
    for program in corpus:
        recorded = record["runs"].get(program.pair.name, {})
        runs = {
            tool.name: {twin: Observation.from_json(recorded[tool.name][twin]) for twin in ("broken", "fixed")}
            for tool in ALL
            if current(record, program, tool.name)
        }
        alarm = program.pair.expects
        expected = oracle.Expected(alarm.code, alarm.cause, program.wrong_line)
        known = "framework" in runs
        cells[program.pair.name] = {name: oracle.cell(name, runs, expected) for name in runs if known}
    return cells


def write(record: dict[str, Any], corpus: list[Program]) -> None:
    """Both files; pairs that are no longer there are left out."""
    cells = judged(record, corpus)
    versions = dict(sorted(record["versions"].items()))
    content = {
        "schema": SCHEMA,
        "versions": versions,
        "tools": {tool.name: {"title": tool.title, "how": tool.how, "folders": tool.folders} for tool in ALL},
        "summary": {tool.name: oracle.summary(table.column(tool, cells)) for tool in ALL},
        "pairs": {
            each.pair.name: {
                "framework": each.kind,
                "record": each.pair.record,
                "expected": {"code": each.pair.expects.code, "cause": each.pair.expects.cause},
                "told": each.told,
                "cells": {tool: asdict(cell) for tool, cell in cells[each.pair.name].items()},
                "runs": {tool.name: recorded[tool.name] for tool in ALL if tool.name in recorded},
            }
            for each in corpus
            for recorded in [record["runs"].get(each.pair.name, {})]
        },
    }
    for file, text in (
        (JSON, json.dumps(content, indent=1, ensure_ascii=False) + "\n"),
        (PAGE, table.page(corpus, cells, versions)),
    ):
        fresh = file.with_suffix(f"{file.suffix}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(file)


if __name__ == "__main__":
    main()
