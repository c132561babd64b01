"""``jax_debug_nans``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.detection.tools._tool import JAX, Say, Steps, Tool


class DebugNans(Tool):
    """Raises when a compiled function returns NaN, and then looks for the operation that made it."""

    name = "debug-nans"
    title = "jax_debug_nans"
    how = "`jax.config.update('jax_debug_nans', True)` before the program"
    folders = JAX

    @contextmanager
    def attached(self, kind: str, say: Say, steps: Steps) -> Iterator[None]:
        import jax

        with jax.debug_nans(True):
            yield

    def alarm(self, error: BaseException) -> tuple[str, str] | None:
        if not isinstance(error, FloatingPointError):
            return None
        return str(error).partition(".")[0], str(error)
