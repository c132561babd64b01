"""The user's own line: the innermost frame outside installed libraries."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from pathlib import Path
from types import FrameType

_PACKAGE = str(Path(__file__).parent) + os.sep
_DEMO = str(Path(__file__).parent / "demo") + os.sep
_LIBRARIES = tuple(
    {
        os.path.realpath(sysconfig.get_path(name)) + os.sep
        for name in ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    }
)


@functools.lru_cache(maxsize=4096)
def _is_library(filename: str) -> bool:
    if filename.startswith("<frozen"):
        return True
    path = os.path.realpath(filename)
    if path.startswith(_DEMO):
        return False  # the demo stands for a user's code
    parts = Path(path).parts
    installed = "site-packages" in parts or "dist-packages" in parts
    return installed or path.startswith(_LIBRARIES) or path.startswith(_PACKAGE) or "ctcguard_integrations" in parts


def call_site(depth: int = 1) -> str:
    """``file:line`` of the innermost frame outside installed libraries, the standard library and ctcguard.

    Parameters
    ----------
    depth : int
        Frames to skip from the caller on.

    Returns
    -------
    str
        Relative to the working directory where that is shorter; empty when all frames belong to libraries.
    """
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and _is_library(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return ""
    return f"{_shown(frame.f_code.co_filename, _folder())}:{frame.f_lineno}"


def _folder() -> str:
    """The working directory; nothing where somebody has removed it."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""


@functools.lru_cache(maxsize=4096)
def _shown(filename: str, folder: str) -> str:
    path = Path(filename)
    relative = os.path.relpath(filename, folder) if folder and path.is_absolute() and path.exists() else filename
    return min(filename, relative, key=len)
