"""Run a program as ``python SCRIPT ARGS…`` and ``python -m MODULE ARGS…`` would, in this process."""

from __future__ import annotations

import builtins
import importlib.util
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader, SourcelessFileLoader
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import cast

from ctcguard.errors import CTCGuardError

OURS = ("ctcguard", "ctcguard_integrations")
# Frames of these, directly before one of ours, are there because of it: imports, and what torch puts around the seam.
LEADING_TO_OURS = (
    "importlib._bootstrap",
    "importlib._bootstrap_external",
    "torch._compile",
    "torch._dynamo.eval_frame",
)


class NoProgramError(CTCGuardError):
    """There is nothing to run under that name; the message says what to write instead."""


@dataclass(frozen=True)
class Program:
    """What the user wants to run.

    Attributes
    ----------
    name : str
        A file, a directory or zip archive with a ``__main__.py``, or with `as_module` a module's name.
    args : tuple of str
        Everything after the name, as it was written.
    as_module : bool
        As ``python -m`` does it.
    """

    name: str
    args: tuple[str, ...] = ()
    as_module: bool = False

    def look(self) -> None:
        """See whether it is there, without importing anything.

        Raises
        ------
        NoProgramError
            If it certainly is not.
        """
        if self.as_module:
            if self.name.endswith(".py") and Path(self.name).exists():
                raise NoProgramError(f"-m takes a module, not a file: write {self.name} without -m")
        elif not Path(self.name).exists():
            where = "" if Path(self.name).is_absolute() else f" in {Path.cwd()}"
            raise NoProgramError(f"there is no script {self.name!r}{where}: {_advice(self.name)}")

    def execute(self) -> None:
        """Run it. Whatever it raises leaves here, `SystemExit` too.

        Raises
        ------
        NoProgramError
            If there is nothing to run.
        """
        sys.argv = ["-m" if self.as_module else self.name, *self.args]
        main, code = self._module() if self.as_module else self._script()
        sys.modules["__main__"] = main
        exec(code, vars(main))

    def _module(self) -> tuple[ModuleType, CodeType]:
        _put_first(Path.cwd())
        spec = _spec_of(self.name)
        if spec.submodule_search_locations is not None:
            spec = _spec_of(f"{self.name}.__main__", f"{self.name!r} is a package without a __main__.py")
        sys.argv[0] = spec.origin or self.name
        return _main_of_spec(spec)

    def _script(self) -> tuple[ModuleType, CodeType]:
        path = Path(self.name).absolute()
        spec = PathFinder.find_spec("__main__", [str(path)])
        if spec is not None:
            _put_first(path, safe=True)
            return _main_of_spec(spec)
        if path.is_dir():
            raise NoProgramError(f"the directory {self.name!r} has no __main__.py to run: name a script in it")
        _put_first(path.resolve().parent)
        return _main_of_file(str(path))


def _put_first(directory: Path, *, safe: bool = False) -> None:
    """Replace the place of ctcguard's own command at the head of `sys.path`; ``python -P`` leaves none there."""
    if not sys.flags.safe_path:
        sys.path[0] = str(directory)
    elif safe:
        sys.path.insert(0, str(directory))


def _advice(name: str) -> str:
    """What the user may have meant by the name of a script that is not there."""
    if Path(f"{name}.py").exists():
        return f"did you mean {name}.py?"
    parts = name.split(".")
    known = all(map(str.isidentifier, parts)) and PathFinder.find_spec(parts[0], [str(Path.cwd()), *sys.path])
    return f"did you mean the module, -m {name}?" if known else "write the path of a file that exists"


def _spec_of(name: str, missing: str = "") -> ModuleSpec:
    try:
        spec = None if name.startswith(".") else importlib.util.find_spec(name)
    except ValueError:  # how find_spec calls a name such as "" or "__main__"
        spec = None
    except ModuleNotFoundError as error:
        # An import that fails inside the parent package is the program's own error.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        spec = None
    if spec is None:
        raise NoProgramError(missing or f"there is no module {name!r} on sys.path, which begins with {sys.path[0]}")
    return spec


def _main_of_spec(spec: ModuleSpec) -> tuple[ModuleType, CodeType]:
    read = getattr(spec.loader, "get_code", None)
    code = read(spec.name) if read else None
    if code is None:
        raise NoProgramError(f"{spec.name!r} ({spec.origin}) holds no Python code that could be run")
    main = importlib.util.module_from_spec(spec)
    main.__dict__.update(__name__="__main__", __builtins__=builtins)
    return main, code


def _main_of_file(path: str) -> tuple[ModuleType, CodeType]:
    main = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __file__=path, __cached__=None)
    try:
        if path.endswith(".pyc"):
            main.__loader__ = SourcelessFileLoader("__main__", path)
            code = main.__loader__.get_code("__main__")
        else:
            main.__loader__ = SourceFileLoader("__main__", path)
            with io.open_code(path) as file:
                code = compile(file.read(), path, "exec", dont_inherit=True)
    except OSError as error:
        raise NoProgramError(f"cannot read {path}: {error.strerror}") from error
    return main, cast("CodeType", code)


def own_traceback(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback as it would be without ctcguard: no frame of its, and none of those that led to the program."""
    kept: list[TracebackType] = []
    for entry in _entries(traceback):
        module = _module_of(entry)
        if module == __name__:
            kept.clear()
        elif module.partition(".")[0] in OURS:
            while kept and _module_of(kept[-1]) in LEADING_TO_OURS:
                kept.pop()
        elif kept or not module.startswith("importlib."):
            kept.append(entry)
    for entry, following in zip(kept, [*kept[1:], None], strict=False):
        entry.tb_next = following
    return kept[0] if kept else None


def _entries(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _module_of(entry: TracebackType) -> str:
    if entry.tb_frame.f_code.co_name.startswith("_ctcguard_"):
        return OURS[0]  # a body put into a function of another module, whose globals it has
    return str(entry.tb_frame.f_globals.get("__name__"))
