"""The end of a process whose verdict was raised while other processes wait for it: it comes, whatever the program does.

The others stand inside a collective. Their launcher ends them as soon as this process has ended: a handler that waits
for them, or a library that does so while the interpreter closes, would keep all of them for ever.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time

GRACE_S = 20.0
"""Time for the program to end by itself after its verdict, and again for the interpreter to close."""
STOPPED = 3
_armed = threading.Event()


def arm(rank: int) -> None:
    """From now on the process has so much time. Twice is harmless."""
    if _armed.is_set():
        return
    _armed.set()
    atexit.register(_close_in_time)
    threading.Thread(target=_end_in_time, args=(rank,), name="ctcguard-exit", daemon=True).start()


def _end_in_time(rank: int) -> None:
    time.sleep(GRACE_S)
    told = f"rank {rank} was still there {GRACE_S:g} s after its verdict; ended, for other ranks wait for it"
    try:
        os.write(2, f"ctcguard: {told}\n".encode())
    finally:
        os._exit(STOPPED)


def _close_in_time() -> None:
    """No thread of Python runs once the interpreter closes: there the kernel keeps the time."""
    if hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)
