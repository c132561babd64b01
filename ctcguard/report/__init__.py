"""``ctcguard report``: what happened in a run, as one HTML file that opens from disk."""

from __future__ import annotations

from pathlib import Path

_REQUIRED = ("jinja2", "markdown_it", "plotly")
FILE = "report.html"


def missing() -> list[str]:
    """The packages that a report needs and that are not installed."""
    from importlib.util import find_spec

    return [name for name in _REQUIRED if find_spec(name) is None]


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write the report of a run.

    Parameters
    ----------
    folder : Path
        The run directory.
    output : Path, optional
        ``report.html`` in the run directory by default. A file of that name is replaced, as a whole.

    Returns
    -------
    Path
        Where it is.

    Raises
    ------
    MissingExtraError
        When a package that it needs is not installed.
    ReportError
        When the folder holds no run, or the file cannot be written.
    """
    if lacking := missing():
        from ctcguard.errors import MissingExtraError

        raise MissingExtraError(f"the report needs {', '.join(lacking)}: pip install 'ctcguard[report]'")
    from ctcguard.report.page import page
    from ctcguard.report.story import read_story, save

    return save(page(read_story(folder)), output or folder / FILE)
