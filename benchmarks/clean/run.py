"""False alarms on healthy trainings that look suspicious, counted by run.

    python benchmarks/clean/run.py [--only TEXT] [--sample N] [--first-seed N] [--json FILE] [--markdown FILE]

Every finding of severity error or warning is a false alarm, whatever its code; information is shown beside it. Half of
the runs of a setting have the default settings of a guard (all rules, reaction "raise"); the other half measure
everything at every call (no budget) and judge later (reaction "log"), so that a run goes on behind its first finding.
Exit code 1 if there is a false alarm. The figures of all runs, on one core, are made by

    python benchmarks/clean/run.py --json benchmarks/clean/clean.json --markdown benchmarks/clean/clean.md
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before any framework is imported
    os.environ |= {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.clean.corpus import Record, Run, Setting, play
from benchmarks.clean.report import as_json, as_markdown, in_words, summary

FAMILIES = (
    "precision", "normalisation", "lengths", "labels", "schedules", "objectives", "architectures", "courses",
    "dynamics", "trainer", "jax_steps", "probed",
)  # fmt: skip


def corpus(names: Sequence[str] = FAMILIES) -> list[Setting]:
    """All settings, in order."""
    modules = [importlib.import_module(f"benchmarks.clean.families.{name}") for name in names]
    return [setting for module in modules for setting in module.family.settings]


def chosen(runs: list[Run], only: Sequence[str], sample: int | None) -> list[Run]:
    """Those with one of the texts in their titles; of these, so many at equal distances."""
    kept = [run for run in runs if not only or any(text in run.title() for text in only)]
    if sample is None or sample >= len(kept):
        return kept
    return [kept[i * len(kept) // sample] for i in range(sample)]


def said(record: Record) -> str:
    """One line for a run, and one for each cause of an alarm."""
    first, last = record.edges
    alarms = {(f.code, f.cause): f for f in reversed(record.alarms())}
    lines = [
        f"{record.run.title():<72} {record.steps:>5} steps  loss {first:9.4g} → {last:9.4g}  {record.seconds:5.1f} s"
    ]
    lines += [f"    {f.severity}: {f.code} {f.name} at step {f.step} ({f.cause}): {f.message}" for f in alarms.values()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="runs with that text in their title"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="so many runs, at equal distances")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N", help="other runs of the same settings")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record here")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table here")
    options = parser.parse_args(arguments)
    every = [run for setting in corpus() for run in setting.runs(options.first_seed)]
    runs = chosen(every, options.only, options.sample)
    if not runs:
        parser.error("no run is called so; a title is family/setting/seed")
    records = []
    for run in runs:
        records.append(play(run))
        print(said(records[-1]), flush=True)
    command = shlex.join(["python", "benchmarks/clean/run.py", *(sys.argv[1:] if arguments is None else arguments)])
    figures = summary(command, records)
    print(in_words(figures))
    for path, text in ((options.json, as_json), (options.markdown, as_markdown)):
        if path is not None:
            path.write_text(text(figures, records), encoding="utf-8")
    return int(figures.with_errors + figures.with_warnings > 0)


if __name__ == "__main__":
    sys.exit(main())
