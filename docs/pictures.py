"""Make the pictures of docs/pictures: what a terminal shows of a run that goes wrong, and the report of another one.

    python docs/pictures.py

Needs chromium and the development group. Look at them before they are committed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.text import Text

from ctcguard.report import write_report

HERE = Path(__file__).parent / "pictures"
COLUMNS, WIDTH = 104, 1060
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def ran(folder: Path, script: Path, code: int, *before: str) -> str:
    """Run a script in a folder; what it printed on stderr, colours too."""
    shutil.copy(script, folder)
    environment = os.environ | {"COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    environment |= {"CTCGUARD_BUDGET": "none", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *before, script.name]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise SystemExit(f"{script.name} should end with exit code {code}, not {done.returncode}:\n{done.stderr}")
    return done.stderr


def terminal(said: str) -> None:
    """The screen as SVG, without the fonts that rich would fetch."""
    console = Console(record=True, width=COLUMNS, file=Path(os.devnull).open("w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(said.rstrip()))
    picture = console.export_svg(title="ctcguard run train_softmax.py")
    (HERE / "terminal.svg").write_text(FONT.sub("", picture), encoding="utf-8")


def report(page: Page, name: str, top: str, height: int) -> None:
    """A part of the page from a heading on."""
    page.evaluate("top => document.querySelector(top).scrollIntoView({behavior: 'instant'})", top)
    page.wait_for_timeout(700)
    page.screenshot(path=HERE / name, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})


def main() -> None:
    """Make all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        softmax = HERE.parent.parent / "tests" / "scripts" / "train_softmax.py"
        terminal(ran(Path(folder), softmax, 3, "-m", "ctcguard", "run", "--run-dir", "softmax"))
        ran(Path(folder), HERE / "train.py", 1)
        address = write_report(Path(folder, "run")).as_uri()
        with sync_playwright() as playwright:
            chromium = next(filter(None, map(shutil.which, BROWSERS)))
            browser = playwright.chromium.launch(executable_path=chromium)
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": WIDTH, "height": 1400}, color_scheme=scheme)
                page.goto(address)
                report(page, f"report-{scheme}.png", "header", 1400)
                report(page, f"call-{scheme}.png", "#calls", 1010)
            browser.close()
    for path in sorted(HERE.iterdir()):
        sys.stdout.write(f"{path.name}: {path.stat().st_size / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
