"""The five cases, one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ctcguard.demo import free_labels, healthy, narrow_head, short_clip, softmax
from ctcguard.demo.screen import Screen, quiet
from ctcguard.demo.training import Records, Stage
from ctcguard.report import missing, write_report


class Case(NamedTuple):
    """A case: its heading, and the function that plays it and says whether it ended as it should."""

    title: str
    run: Callable[[Stage], bool]


CASES: Final[Mapping[str, Case]] = {
    "healthy": Case(healthy.TITLE, healthy.run),
    "softmax": Case(softmax.TITLE, softmax.run),
    "narrow-head": Case(narrow_head.TITLE, narrow_head.run),
    "short-clip": Case(short_clip.TITLE, short_clip.run),
    "free-labels": Case(free_labels.TITLE, free_labels.run),
}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one core: a second thread gains a quarter, and loses tenfold as soon as something else runs too.

    Threads wait for each other at every one of thousands of small operations, by spinning.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def play(names: list[str], *, quick: bool) -> int:
    """Play cases and sum up.

    Parameters
    ----------
    names : list of str
        Keys of `CASES`.
    quick : bool
        Less speech and fewer steps.

    Returns
    -------
    int
        How many did not end as they should.
    """
    screen = Screen()
    directory = Path(tempfile.mkdtemp(prefix="ctcguard-demo-"))
    failed = []
    for number, name in enumerate(names, start=1):
        screen.title(f"{number}/{len(names)}  {CASES[name].title}")
        (directory / name).mkdir()
        with quiet(), _one_thread():
            if not CASES[name].run(Stage(screen, directory / name, quick)):
                failed.append(name)
    screen.title(
        f"failed: {', '.join(failed)}" if failed else f"{len(names)} of {len(names)} cases ended as they should"
    )
    screen.table([(name, guard_said(directory / name), name not in failed) for name in names])
    screen.row("files", f"{directory}: findings.jsonl, readings and records of each case")
    with quiet(), screen.busy("writing the reports"):
        written = reports(directory / name for name in names)
    for path in written:
        screen.row("report", str(path))
    if missing():
        screen.row("report", f"none: the report needs {', '.join(missing())}: pip install 'ctcguard[report]'")
    elif written:
        screen.row("", "open the last one in a browser; it needs no network")
    return len(failed)


def guard_said(folder: Path) -> str:
    """The verdicts of a case in a few words.

    Parameters
    ----------
    folder : Path
        Of the case.

    Returns
    -------
    str
        Code, cause and step of each.
    """
    runs = [Records.of(path.parent) for path in sorted(folder.rglob("findings.jsonl"))]
    said = [f"{v['code']} {v['cause']}, step {v['step']}" for run in runs for v in run.verdicts]
    return "; ".join(said) or ("no finding" if runs else "")


def reports(folders: Iterable[Path]) -> list[Path]:
    """Write the report of each case in which a call was recorded.

    Parameters
    ----------
    folders : iterable of Path
        Of the cases; the run directory is the folder, or ``ctcguard`` in it.

    Returns
    -------
    list of Path
        The pages, that with most to see last; none where the extra is not installed.
    """
    recorded = [path.parent for folder in folders for path in sorted(folder.rglob("*.safetensors"))]
    if missing():
        return []
    pages = [write_report(folder) for folder in dict.fromkeys(recorded)]
    return sorted(pages, key=lambda page: page.stat().st_size)
