"""Keep README.md true: writes a screen, the rules and the detection figures into it (`make docs`); a test compares."""

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


def parts(text: str) -> dict[str, str]:
    """The generated parts of a README, by name."""
    shown = re.search(r"<!-- screen:.*?-->\n```text\n(.*?)\n?```", text, re.DOTALL)
    listed = re.search(r"<!-- rules:.*?-->\n((?:\|.*\n)+)", text)
    compared = re.search(r"<!-- detection:.*?-->\n((?:\|.*\n)+)", text)
    if shown is None or listed is None or compared is None:
        raise SystemExit("README.md has lost a mark: <!-- screen: -->, <!-- rules: --> or <!-- detection: -->")
    return {"screen": shown[1], "table": listed[1].rstrip("\n"), "detection": compared[1].rstrip("\n")}


def main() -> None:
    """Write all parts."""
    text = README.read_text(encoding="utf-8")
    old = parts(text)
    for part, fresh in (("screen", screen()), ("table", table()), ("detection", detection())):
        text = text.replace(old[part], fresh)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
