"""Programs that cannot be run: one line each that says what to write instead."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ctcguard.program import NoProgramError, Program


def write_programs(folder: Path) -> None:
    for name in ("raises.py", "show.py", "deep/show.py", "package/__init__.py", "package/inner.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Program("nowhere.py"), "there is no script 'nowhere.py' in {here}: write the path of a file that exists"),
        (Program("raises"), "there is no script 'raises' in {here}: did you mean raises.py?"),
        (Program("deep/show"), "there is no script 'deep/show' in {here}: did you mean deep/show.py?"),
        (
            Program("package.inner"),
            "there is no script 'package.inner' in {here}: did you mean the module, -m package.inner?",
        ),
        (Program("json.tool"), "there is no script 'json.tool' in {here}: did you mean the module, -m json.tool?"),
        (Program("/no/where.py"), "there is no script '/no/where.py': write the path of a file that exists"),
        (Program("deep"), "the directory 'deep' has no __main__.py to run: name a script in it"),
        (Program("show.py", as_module=True), "-m takes a module, not a file: write show.py without -m"),
        (Program("nowhere", as_module=True), "there is no module 'nowhere' on sys.path, which begins with {here}"),
        (
            Program("package.no", as_module=True),
            "there is no module 'package.no' on sys.path, which begins with {here}",
        ),
        (Program(".inner", as_module=True), "there is no module '.inner' on sys.path, which begins with {here}"),
        (Program("", as_module=True), "there is no module '' on sys.path, which begins with {here}"),
        (Program("deep", as_module=True), "'deep' is a package without a __main__.py"),
        (Program("_abc", as_module=True), "'_abc' (built-in) holds no Python code that could be run"),
    ],
    ids=str,
)
def test_nothing_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Program, message: str) -> None:
    write_programs(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(sys, "argv", sys.argv)
    before = {*sys.modules}
    with pytest.raises(NoProgramError) as refused:
        look_and_execute(program)
    for name in {*sys.modules} - before:
        del sys.modules[name]
    assert str(refused.value) == message.format(here=tmp_path)


def look_and_execute(program: Program) -> None:
    program.look()
    program.execute()
