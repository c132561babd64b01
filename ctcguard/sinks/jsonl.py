"""findings.jsonl: one JSON object a line, whole lines only, handed to the system at once.

When the call has returned, the line outlives the process, however it ends. A line within one page of memory is one
write, which no signal divides; for any other, a longer file takes the place of this one.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ctcguard.finding import Finding
from ctcguard.verdict import Verdict

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class JsonLines:
    """Appends findings, verdicts and the end record to a file; the file is made with the first line.

    What a crash of the machine may leave of a line is taken away by the next to write.

    Parameters
    ----------
    path : Path
        Its directory is made too.
    """

    name = "findings.jsonl"

    def __init__(self, path: Path) -> None:
        self.path = path

    def _write(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        line = text.encode("utf-8", "backslashreplace")  # half a surrogate pair as JSON escapes it
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = _opened(self.path)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                os.write(file, line)  # /dev/stdout, a pipe
                return
            end = _whole_lines(file)
            if end // mmap.PAGESIZE == (end + len(line) - 1) // mmap.PAGESIZE:
                _append(file, line, end)
            else:
                _exchange(file, line, self.path.resolve())
        finally:
            os.close(file)

    def finding(self, finding: Finding) -> None:
        """Write the finding."""
        self._write(finding.record())

    def verdict(self, verdict: Verdict) -> None:
        """Write the verdict."""
        self._write(verdict.record())

    def readings(self, scalars: Mapping[str, float], step: int) -> None:
        """Nothing: the file is for findings."""

    def end(self, record: Mapping[str, Any]) -> None:
        """Write the last line."""
        self._write(record)


def _opened(path: Path) -> int:
    """The file, held by this process alone until it is closed."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        if fcntl is None:
            return file
        fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # another process has exchanged it meanwhile


def _append(file: int, line: bytes, end: int) -> None:
    """Write at the end, all or nothing."""
    if os.write(file, line) < len(line):
        os.ftruncate(file, end)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _exchange(file: int, line: bytes, path: Path) -> None:
    """Put a longer file in the place of this one: a process that is killed can leave a part of several pages."""
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(os.dup(file), "rb") as old:
        whole = old.read() + line
    longer = path.with_name(f"{path.name}.unfinished")
    try:
        longer.write_bytes(whole)
        shutil.copymode(path, longer)
        longer.replace(path)
    except OSError:
        longer.unlink(missing_ok=True)
        raise


def _whole_lines(file: int) -> int:
    """The size of a file after what follows its last line break was cut off."""
    size = end = os.lseek(file, 0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        os.lseek(file, start, os.SEEK_SET)
        found = os.read(file, end - start).rfind(b"\n")
        end = start + found + 1 if found >= 0 else start
        if found >= 0:
            break
    if end < size:
        os.ftruncate(file, end)
    return end
