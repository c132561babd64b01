"""The pairs in Hugging Face: each broken program is named for its mistake, each fixed one is left in peace."""

from __future__ import annotations

from pathlib import Path

from tests.failures.playing import broken_is_named, every, fixed_is_left_in_peace


@every("hf")
def test_the_broken_program_is_named_for_its_mistake(path: Path, tmp_path: Path) -> None:
    broken_is_named(path, tmp_path)


@every("hf")
def test_the_fixed_program_is_left_in_peace(path: Path, tmp_path: Path) -> None:
    fixed_is_left_in_peace(path, tmp_path)
