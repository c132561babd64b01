"""Work that may never end, on a thread where it holds up neither the caller nor the end of the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Answer = TypeVar("Answer")


def on_thread(work: Callable[[], Answer], name: str) -> Future[Answer]:
    """Start it.

    Parameters
    ----------
    work : callable
        What it returns or raises is handed to whoever asks the future.
    name : str
        Of the thread.

    Returns
    -------
    Future
        Done already where the interpreter is closing and starts no more threads.

    Examples
    --------
    >>> on_thread(lambda: 6 * 7, "example").result(timeout=5)
    42
    """
    future: Future[Answer] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            future.set_exception(error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:  # the interpreter is closing and starts no more threads
        run()
    return future
