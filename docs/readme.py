"""Keep README.md true: writes the screen of a verdict and the table of rules into it (`make docs`); a test compares."""

from __future__ import annotations

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
    return "\n".join(line.rstrip() for line in done.stderr.splitlines())


def table() -> str:
    """The rows of ``ctcguard rules``, as Markdown, each linked to its page."""
    lines = ["| code | name | severity | checks |", "|---|---|---|---|"]
    for code, name, severity, checks in rows():
        cells = (f"[{code}](docs/rules/{code}-{name}.md)", name, severity, checks.removeprefix("Checks "))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def parts(text: str) -> dict[str, str]:
    """The generated parts of a README, by name."""
    shown = re.search(r"<!-- screen:.*?-->\n```text\n(.*?)\n?```", text, re.DOTALL)
    listed = re.search(r"<!-- rules:.*?-->\n((?:\|.*\n)+)", text)
    if shown is None or listed is None:
        raise SystemExit("README.md has lost the marks <!-- screen: --> or <!-- rules: -->")
    return {"screen": shown[1], "table": listed[1].rstrip("\n")}


def main() -> None:
    """Write both parts."""
    text = README.read_text(encoding="utf-8")
    old = parts(text)
    text = text.replace(old["screen"], screen())
    README.write_text(text.replace(old["table"], table()), encoding="utf-8")


if __name__ == "__main__":
    main()
