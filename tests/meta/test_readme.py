"""The README shows what the program prints."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "docs" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


readme = _generator()
TEXT = readme.README.read_text(encoding="utf-8")


def without_digits(text: str) -> str:
    """Numbers may differ in the last place from machine to machine, and with them where a line breaks."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", re.sub(r"\d+(\.\d+)?", "0", text))


def test_the_table_of_rules_is_that_of_the_program() -> None:
    assert readme.parts(TEXT)["table"] == readme.table(), "run make docs"


def test_the_screen_is_what_the_command_prints() -> None:
    assert without_digits(readme.parts(TEXT)["screen"]) == without_digits(readme.screen()), "run make docs"


def test_the_detection_figures_are_those_of_the_benchmark() -> None:
    assert readme.parts(TEXT)["detection"] == readme.detection(), "run make docs"


def test_the_count_of_false_alarms_is_that_of_the_benchmark() -> None:
    assert readme.parts(TEXT)["clean"] == readme.clean(), "run make docs"


def test_the_costs_are_those_of_the_benchmark() -> None:
    assert readme.parts(TEXT)["cost"] == readme.cost(), "run make docs"


def test_twin_a_stale_readme_is_seen() -> None:
    stale = TEXT.replace("head-too-narrow |", "head-too-small |")
    assert readme.parts(stale)["table"] != readme.table()
    figures = readme.parts(TEXT)["detection"]
    assert readme.parts(TEXT.replace(figures, figures.replace(" of ", " out of ")))["detection"] != readme.detection()
    assert readme.parts(TEXT.replace(" 0 runs with an error", " 1 runs with an error"))["clean"] != readme.clean()
    assert readme.parts(TEXT.replace("| ×1.0", "| ×2.0"))["cost"] != readme.cost()
    assert without_digits(readme.parts(TEXT.replace("fix pass", "fix give"))["screen"]) != without_digits(
        readme.parts(TEXT)["screen"]
    )


def test_links_to_files_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "rules").glob("*.md")), ids=lambda page: page.stem)
def test_pages_in_docs_are_those_of_the_rules(page: Path) -> None:
    from ctcguard.rule_pages import page as made
    from ctcguard.rules import rule_named

    assert page.read_text(encoding="utf-8") == made(rule_named(page.stem.split("-")[0])), "run make docs"
