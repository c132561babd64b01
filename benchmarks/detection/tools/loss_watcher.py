"""What most loops have, if anything: a look at the scalar loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.detection.tools._tool import JAX, TORCH, Say, Steps, Tool


class LossWatcher(Tool):
    """``isfinite(loss)`` and ``loss < 0``."""

    name = "loss-watcher"
    title = "loss watcher"
    how = (
        "`not isfinite(loss)` or `loss < 0`, on every scalar whose `backward()` is called (hf: inside the Trainer, "
        "before its log filters NaN) or which `value_and_grad` returns"
    )
    folders = (*TORCH, *JAX)

    @contextmanager
    def attached(self, kind: str, say: Say, steps: Steps) -> Iterator[None]:
        if kind == "jax":
            from benchmarks.detection.jax_program import losses
        else:
            from benchmarks.detection.torch_program import losses

        def seen(loss: Any) -> None:
            value = float(loss.detach().float().sum()) if kind != "jax" else float(loss.sum())
            if not math.isfinite(value):
                say("not finite", f"loss is {value}")
            elif value < 0:
                say("negative", f"loss is negative: {value:.4g}")

        with losses(seen):
            yield
