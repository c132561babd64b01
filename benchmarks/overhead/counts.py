"""How many instructions a guarded call takes: counts, which a busy machine does not change as it does a clock.

    python benchmarks/overhead/counts.py        writes counts.json and counts.md; needs valgrind, takes some minutes

Each call is ``F.ctc_loss`` on one batch of call.py. Machine instructions are those that callgrind counts: a process
that has everything loaded is forked, one fork makes CALLS[0] calls and another one CALLS[1], and what they differ by
is divided by the calls that they differ by. Bytecodes and calls of Python functions are those that Python's own tracing
counts in one call. A guard is asked for a look at the scores (no budget) or for a glimpse (a budget that is spent:
labels, lengths and losses only); what it adds to an unguarded forward pass is the guard's.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "integrations")]

from benchmarks.overhead.call import Call  # noqa: E402 - after the path
from benchmarks.overhead.ratios import machine  # noqa: E402
from benchmarks.overhead.torch_arms import seam_of  # noqa: E402
from ctcguard import watch  # noqa: E402
from ctcguard.clock import ALWAYS_CALLS, SELDOM_CALLS  # noqa: E402

JSON, PAGE = HERE / "counts.json", HERE / "counts.md"
SIZE, LABELS = (8, 400, 64), 40
CALLS = (2, 12)
FORWARD, BOTH = "unguarded, forward", "unguarded, forward and backward"
GUARDS = {"guarded, a glimpse": 1e-9, "guarded, a look at the scores": None}
assert ALWAYS_CALLS + sum(CALLS) < 3 * SELDOM_CALLS
TOTAL = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)


def arms() -> Iterator[tuple[str, Callable[[], None]]]:
    """One call of each, warmed up."""
    call, small = Call(SIZE, torch.float32, LABELS), Call((2, 40, SIZE[2]), torch.float32, 4)
    yield FORWARD, call.forward
    yield BOTH, call.timed
    for name, budget in GUARDS.items():
        watching = watch(sinks=(), budget=budget)
        seeing = seam_of(watching)

        def guarded(given: Call = call, watching: Any = watching, seeing: Any = seeing) -> None:
            with seeing():
                given.forward()
            watching.guard.at_step(watching.guard.step + 1)

        for _ in range(2 * SELDOM_CALLS):  # what the budget never thins
            guarded(small)
        for _ in range(2):
            guarded()
        assert watching.guard.brief == (budget is not None)
        assert watching.findings == [], watching.findings
        yield name, guarded


def python_counts(work: Callable[[], None]) -> dict[str, int]:
    """Bytecodes and calls of Python functions in one call, of all modules."""
    found = {"bytecodes": 0, "python_calls": 0}

    def traced(frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        found["python_calls"] += event == "call"
        found["bytecodes"] += event == "opcode"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        work()
    finally:
        sys.settrace(before)
    return found


def inside() -> None:
    """What runs under callgrind: prints, for each fork, its process, its arm and its calls."""
    for name, work in dict(arms()).items():
        for calls in CALLS:
            gc.collect()
            gc.disable()
            child = os.fork()
            if not child:
                for _ in range(calls):
                    work()
                os._exit(0)
            os.waitpid(child, 0)
            print(json.dumps([child, name, calls]), flush=True)


def machine_counts() -> dict[str, int]:
    """Instructions of a call of each arm, by callgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise SystemExit("instructions are counted by valgrind, which is not there (apt-get install valgrind)")
    with tempfile.TemporaryDirectory() as folder:
        command = [valgrind, "--tool=callgrind", "-q", f"--callgrind-out-file={folder}/%p"]
        command += [sys.executable, __file__, "--inside"]
        alike = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=alike).stdout
        counted: dict[str, dict[int, int]] = {}
        for line in printed.splitlines():
            child, name, calls = json.loads(line)
            total = TOTAL.search(Path(folder, str(child)).read_text())
            assert total is not None
            counted.setdefault(name, {})[calls] = int(total[1])
    few, many = CALLS
    return {name: round((totals[many] - totals[few]) / (many - few)) for name, totals in counted.items()}


def page(content: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "# Instructions of a call", "",
        f"Written by `{content['command']}` on {content['machine']},",
        f"{content['counted_by']}, torch {content['torch']}.",
        f"A batch of {content['size']}. Bytecodes and calls are Python's own, instructions those of the processor.", "",
        "| call | instructions | bytecodes | calls of Python functions |", "| --- | --: | --: | --: |",
    ]  # fmt: skip
    rows = content["rows"]
    for name, row in rows.items():
        lines.append(f"| {name} | {row['instructions']:,} | {row['bytecodes']:,} | {row['python_calls']:,} |")
    lines += ["", "| the guard alone | instructions | of the loss's forward and backward | bytecodes |"]
    lines.append("| --- | --: | --: | --: |")
    for name in GUARDS:
        added, codes = (rows[name][kind] - rows[FORWARD][kind] for kind in ("instructions", "bytecodes"))
        lines.append(
            f"| {name.partition(', ')[2]} | {added:,} | {added / rows[BOTH]['instructions']:.1%} | {codes:,} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.inside:
        inside()
        return
    rows: dict[str, dict[str, int]] = {name: python_counts(work) for name, work in dict(arms()).items()}
    for name, instructions in machine_counts().items():
        rows[name] = {"instructions": instructions, **rows[name]}
        print(name, rows[name], flush=True)
    counted_by = subprocess.run(["valgrind", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    content = {
        "command": "python benchmarks/overhead/counts.py",
        "machine": machine()["machine"],
        "counted_by": counted_by,
        "torch": torch.__version__,
        "size": f"{'×'.join(map(str, SIZE))}, up to {LABELS} labels",
        "rows": rows,
    }
    JSON.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(content), encoding="utf-8")


if __name__ == "__main__":
    main()
