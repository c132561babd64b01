"""A training with one wrong batch, under a guard that lets it go on, which then ends in the way that is named."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from ctcguard import watch
from tests.faults.training import RUN_DIR, WRONG, plain, train


def end(how: str) -> None:
    if how in ("SIGTERM", "SIGINT", "SIGKILL", "SIGHUP"):
        os.kill(os.getpid(), getattr(signal, how))
        time.sleep(60)
    if how == "_exit":
        os._exit(7)
    if how == "exit":
        sys.exit(7)
    if how == "exception":
        raise LookupError("the user's own")
    if how == "child":
        command = [sys.executable, __file__, "exit"]
        assert subprocess.run(command, check=False, cwd=Path("child")).returncode == 7
    if how == "fork":
        child = os.fork()
        if not child:
            train()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0


def at_exit(how: str) -> None:
    """Train while the interpreter closes: before the guard is closed by it, after, or on a thread all the while."""
    if how == "late":
        atexit.register(train)  # handlers run last in, first out
    guard = watch(on_error="alert", run_dir=RUN_DIR)
    if how == "handler":
        atexit.register(train)
    if how == "late":
        train()
    if how == "thread":
        threading.Thread(target=lambda: [train() for _ in range(10_000)], daemon=True).start()
        while not guard.verdicts:
            time.sleep(0.01)


def in_a_block(how: str) -> None:
    """Train, compare, and end."""
    expected = plain()
    in_the_middle = how.startswith("SIG") or how == "_exit"
    with watch(on_error="alert", run_dir=RUN_DIR):
        assert train(lambda step: end(how) if in_the_middle and step == WRONG + 1 else None).same(expected)
        end(how)


def main(how: str) -> None:
    if how == "warnings":
        warnings.simplefilter("error")
    if how == "closed":
        for number, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)):
            stream.close()
            with contextlib.suppress(OSError):
                os.close(number)
    (at_exit if how in ("handler", "late", "thread") else in_a_block)(how)


main(sys.argv[1])
