"""What a script prints without a guard: run in the process of the tests, which has imported its framework already."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from pathlib import Path
from unittest import mock


def printed(script: Path | str, *arguments: str) -> str:
    """What ``python SCRIPT ARGUMENTS`` writes on its standard output."""
    out = io.StringIO()
    with mock.patch.object(sys, "argv", [str(script), *arguments]), contextlib.redirect_stdout(out):
        runpy.run_path(str(script), run_name="__main__")
    return out.getvalue()
