"""``transformers.debug_utils.DebugUnderflowOverflow``; in TrainingArguments, ``debug="underflow_overflow"``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.detection.tools._tool import Say, Steps, Tool


class UnderflowOverflow(Tool):
    """Raises when a weight, an input or an output of a module holds NaN or infinity."""

    name = "underflow-overflow"
    title = "HF DebugUnderflowOverflow"
    how = "`DebugUnderflowOverflow(model)` for every model, before its first call"

    @contextmanager
    def attached(self, kind: str, say: Say, steps: Steps) -> Iterator[None]:
        from transformers.debug_utils import DebugUnderflowOverflow

        from benchmarks.detection.torch_program import models

        watched: dict[int, Any] = {}

        def called(model: Any) -> None:
            if id(model) not in watched:
                watched[id(model)] = DebugUnderflowOverflow(model)

        with models(called):
            yield

    def alarm(self, error: BaseException) -> tuple[str, str] | None:
        if "inf/nan detected" not in str(error):
            return None
        _, found, frames = self.output().rpartition("Detected inf/nan during batch_number=")
        return "inf/nan", f"{error}\n{found}{frames}"
