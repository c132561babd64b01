"""``torch.autograd.set_detect_anomaly(True)``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.detection.tools._tool import Say, Steps, Tool


class AnomalyMode(Tool):
    """Raises when a backward function returns NaN; the call that made it is in a warning on stderr."""

    name = "anomaly-mode"
    title = "autograd anomaly mode"
    how = "`torch.autograd.set_detect_anomaly(True)` before the program"

    @contextmanager
    def attached(self, kind: str, say: Say, steps: Steps) -> Iterator[None]:
        import torch

        with torch.autograd.set_detect_anomaly(True):
            yield

    def alarm(self, error: BaseException) -> tuple[str, str] | None:
        match = re.match(r"Function '(\w+)' returned nan values", str(error))
        return (match[0], str(error)) if match else None

    def lines(self, path: str) -> tuple[int, ...]:
        return tuple(int(line) for line in re.findall(rf'File "{re.escape(path)}", line (\d+)', self.output()))
