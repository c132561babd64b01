from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from ctcguard.on_import import when_imported

LATE = "late_framework"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Put a module where it can be imported; everything is as before when the test is over."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])

    def write(text: str = "value = 1\n", path: str = f"{LATE}.py") -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        importlib.invalidate_caches()
        return file

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == LATE]:
        del sys.modules[name]


def test_called_once_after_the_module_has_run_and_leaves_nothing_behind(write: Write) -> None:
    write()
    before = list(sys.meta_path)
    seen: list[int] = []
    when_imported(LATE, lambda module: seen.append(module.value))
    import json  # noqa: F401

    assert seen == []
    module = importlib.import_module(LATE)
    importlib.reload(module)
    assert seen == [1]
    assert sys.meta_path == before
    assert module.__spec__ is not None
    assert type(module.__loader__) is type(module.__spec__.loader) is SourceFileLoader


def test_two_that_wait_for_one_module_are_both_called(write: Write) -> None:
    write()
    before = list(sys.meta_path)
    seen: list[str] = []
    when_imported(LATE, lambda module: seen.append("first"))
    when_imported(LATE, lambda module: seen.append("second"))
    importlib.import_module(LATE)
    assert sorted(seen) == ["first", "second"]
    assert sys.meta_path == before


def test_called_at_once_when_the_module_is_there() -> None:
    seen: list[ModuleType] = []
    before = list(sys.meta_path)
    when_imported("json", seen.append)
    assert seen == [importlib.import_module("json")]
    assert sys.meta_path == before


def test_a_module_within_a_package_and_the_package_itself(write: Write) -> None:
    write(
        "def __getattr__(name):\n    import importlib\n    return importlib.import_module('.' + name, __name__)\n",
        f"{LATE}/__init__.py",
    )
    write(path=f"{LATE}/trainer.py")
    seen: list[str] = []
    for name in (f"{LATE}.trainer", LATE):
        when_imported(name, lambda module: seen.append(module.__name__))
    package = importlib.import_module(LATE)
    assert seen == [LATE]
    assert package.trainer.value == 1  # a lazy package, as transformers is
    assert seen == [LATE, f"{LATE}.trainer"]


def test_looking_for_the_module_is_not_importing_it(write: Write) -> None:
    write()
    seen: list[ModuleType] = []
    when_imported(LATE, seen.append)
    spec = importlib.util.find_spec(LATE)
    assert spec is not None
    assert spec.loader is not None
    assert spec.loader.get_source(LATE) == "value = 1\n"  # type: ignore[attr-defined]
    assert seen == []
    assert seen == [importlib.import_module(LATE)] * len(seen)
    assert len(seen) == 1


def test_an_import_that_fails_is_not_counted(write: Write) -> None:
    file = write("raise OSError('a library is missing')\n")
    seen: list[ModuleType] = []
    when_imported(LATE, seen.append)
    with pytest.raises(OSError, match="a library is missing"):
        importlib.import_module(LATE)
    assert seen == []
    file.write_text("value = 22\n")
    assert importlib.import_module(LATE).value == 22
    assert len(seen) == 1


def test_a_module_that_does_not_exist_is_not_found() -> None:
    before = list(sys.meta_path)
    when_imported(LATE, print)
    try:
        with pytest.raises(ModuleNotFoundError, match=LATE):
            importlib.import_module(LATE)
        assert importlib.util.find_spec(LATE) is None
    finally:
        sys.meta_path = before


def test_what_the_callback_raises_leaves_the_import(write: Write) -> None:
    write()

    def refuse(module: ModuleType) -> None:
        raise SystemExit(2)

    when_imported(LATE, refuse)
    with pytest.raises(SystemExit):
        importlib.import_module(LATE)


def test_many_threads_import_at_once(write: Write) -> None:
    write("import time\ntime.sleep(0.05)\nready = True\n")
    others = ["colorsys", "this_is_not_there", "stringprep"]
    seen: list[bool] = []
    errors: list[BaseException] = []
    barrier = threading.Barrier(12)
    when_imported(LATE, lambda module: seen.append(module.ready))

    def load(index: int) -> None:
        barrier.wait()
        try:
            importlib.util.find_spec(others[index % len(others)])
            assert importlib.import_module(LATE).ready
        except BaseException as error:  # noqa: BLE001 - shown by the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=load, args=(index,)) for index in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert seen == [True]
