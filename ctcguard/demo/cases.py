"""The five cases, one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from ctcguard.demo import free_labels, healthy, narrow_head, short_clip, softmax
from ctcguard.demo.screen import Screen, quiet
from ctcguard.demo.training import Stage


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
    screen.row("records", f"{directory} (findings.jsonl of each case)")
    return len(failed)
