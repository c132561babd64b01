"""Keep README.md true: writes a screen, the rules and figures of benchmarks into it (`make docs`); a test compares."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ctcguard.rule_pages import rows

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DETECTION = ROOT / "benchmarks" / "detection" / "detection.json"
CLEAN = ROOT / "benchmarks" / "clean" / "clean.json"
STEPS = ROOT / "benchmarks" / "overhead" / "steps.json"
COLUMNS = 104


def screen() -> str:
    """What ``ctcguard run`` prints for the forum mistake."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "tests" / "scripts" / "train_softmax.py", folder)
        command = [sys.executable, "-m", "ctcguard", "run", "train_softmax.py"]
        environment = os.environ | {"COLUMNS": str(COLUMNS), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(  # its exit code is the point
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    if done.returncode != 3:
        raise SystemExit(f"the softmax script should end with exit code 3, not {done.returncode}:\n{done.stderr}")
    return "\n".join(line.rstrip() for line in _some_day(done.stderr).splitlines())


def _some_day(text: str) -> str:
    """The screen of a day and a process that stay the same."""
    return re.sub(r"(ctcguard-runs/)\d{8}-\d{6}-\d+(\S*)( *)", _replaced, text)


def _replaced(found: re.Match[str]) -> str:
    shown = f"{found[1]}20260101-120000-4711{found[2]}"
    return shown + " " * max(0, len(found[0]) - len(shown)) if found[3] else shown


def table() -> str:
    """The rows of ``ctcguard rules``, as Markdown, each linked to its page."""
    lines = ["| code | name | severity | checks |", "|---|---|---|---|"]
    for code, name, severity, checks in rows():
        cells = (f"[{code}](docs/rules/{code}-{name}.md)", name, severity, checks.removeprefix("Checks "))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def detection() -> str:
    """The short form of benchmarks/detection/detection.md: what each tool noticed and named."""
    measured = json.loads(DETECTION.read_text(encoding="utf-8"))
    lines = ["| tool | noticed | cause named | false alarms on fixed programs |", "|---|--:|--:|--:|"]
    for name, found in measured["summary"].items():
        pairs = found["pairs"]
        cells = (f"{found['noticed']} of {pairs}", f"{found['named']}", f"{found['cries_wolf']}")
        lines.append(f"| {' | '.join((measured['tools'][name]['title'], *cells))} |")
    return "\n".join(lines)


def clean() -> str:
    """The totals of benchmarks/clean/clean.md: false alarms on healthy trainings."""
    found = json.loads(CLEAN.read_text(encoding="utf-8"))
    trained = f"{found['runs']} healthy trainings that look suspicious, {found['steps']:,} optimizer steps in all"
    alarms = f"{found['with_errors']} runs with an error, {found['with_warnings']} with a warning"
    return f"In {trained}: {alarms} (`{found['command']}`)."


COMPARED = (
    "unguarded again", "autograd anomaly mode", "HF DebugUnderflowOverflow", "torch-audit",
    "TrainCheck, selective tracing", "jax_debug_nans", "checkify",
)  # fmt: skip


def cost() -> str:
    """What a step costs with the guard and with other tools, from benchmarks/overhead/steps.json."""
    found = json.loads(STEPS.read_text(encoding="utf-8"))
    lines = ["| a training step of | | ctcguard | 95% | mean | contracts alone | " + " | ".join(COMPARED) + " |"]
    lines.append("| --- | --: | --: | --: | --: | --: |" + " --: |" * len(COMPARED))
    for arms in found["trainings"].values():
        guard = arms["ctcguard"]
        interval = f"{guard['clock']['least']:.3f} – {guard['clock']['most']:.3f}"
        cells = [
            arms["title"],
            f"{arms['unguarded again']['ms']:.0f} ms",
            f"×{guard['clock']['median']:.3f}",
            interval,
        ]
        cells += [f"×{guard['mean']:.3f}", f"×{arms['ctcguard, contract only']['clock']['median']:.3f}"]
        cells += [f"×{arms[name]['clock']['median']:.2f}" if name in arms else "" for name in COMPARED]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


PARTS = {
    "screen": r"<!-- screen:.*?-->\n```text\n((?s:.*?))\n?```",
    "table": r"<!-- rules:.*?-->\n((?:\|.*\n)+)",
    "detection": r"<!-- detection:.*?-->\n((?:\|.*\n)+)",
    "clean": r"<!-- clean:.*?-->\n(.+\n)",
    "cost": r"<!-- cost:.*?-->\n((?:\|.*\n)+)",
}


def parts(text: str) -> dict[str, str]:
    """The generated parts of a README, by name."""
    found = {}
    for name, mark in PARTS.items():
        part = re.search(mark, text)
        if part is None:
            raise SystemExit(f"README.md has lost the mark of its {name}: {mark}")
        found[name] = part[1].rstrip("\n")
    return found


def main() -> None:
    """Write all parts."""
    text = README.read_text(encoding="utf-8")
    made = {"screen": screen(), "table": table(), "detection": detection(), "clean": clean(), "cost": cost()}
    for part, old in parts(text).items():
        text = text.replace(old, made[part])
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
