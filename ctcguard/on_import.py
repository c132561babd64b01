"""Call something once, right after a module was imported, whoever imports it and when."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

Callback = Callable[[ModuleType], object]


def when_imported(name: str, callback: Callback) -> None:
    """Call back with the module as soon as it has been imported; now, if it was imported before.

    Parameters
    ----------
    name : str
        Full name, ``"torch"`` or ``"transformers.trainer"``. It is not imported by this.
    callback : callable
        Takes the module; called once, in the thread that imports it. What it raises leaves the import statement.
    """
    module = sys.modules.get(name)
    if module is None:
        sys.meta_path.insert(0, _Finder(name, callback))
    else:
        callback(module)


class _Finder(MetaPathFinder):
    """Leaves the finding of one module to the other finders and puts a loader around theirs.

    It has no state: a specification that is only looked at (``importlib.util.find_spec``) changes nothing.
    """

    def __init__(self, name: str, callback: Callback) -> None:
        self._name = name
        self._callback = callback

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        # Those behind this one only: another that waits for the same module would ask this one again, for ever.
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 if self in finders else 0 :]:
            find = getattr(finder, "find_spec", None)
            spec = None if find is None else find(fullname, path, target)
            if isinstance(spec, ModuleSpec):
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self._imported)  # type: ignore[arg-type]
                return spec
        return None

    def _imported(self, module: ModuleType) -> None:
        # A new list: taking an item out of the old one would make a search in another thread skip a finder.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self]
        self._callback(module)


class _Loader(Loader):
    """A loader that says when it is done; the module never sees it, only the real one."""

    def __init__(self, loader: Loader, imported: Callback) -> None:
        self._loader = loader
        self._imported = imported

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._imported(module)
