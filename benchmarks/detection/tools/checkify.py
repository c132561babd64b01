"""``jax.experimental.checkify`` with all of its automatic checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.detection.tools._tool import JAX, Steps, Tool

Function = Callable[..., Any]


class Checkify(Tool):
    """Raises after a step in which an operation made NaN, divided by zero, or read beyond an array."""

    name = "checkify"
    title = "checkify"
    how = (
        "`jit(checkify(step, errors=all_checks))` (NaN, division by zero, indices) for every function that the program "
        "compiles, and `err.throw()` after each call"
    )
    folders = JAX

    def steps(self, kind: str) -> Steps:
        from benchmarks.detection.jax_program import JaxSteps

        return JaxSteps(checked)

    def alarm(self, error: BaseException) -> tuple[str, str] | None:
        return (str(error).partition(" at ")[0], str(error)) if type(error).__name__ == "JaxRuntimeError" else None


def checked(compiler: Function, step: Function, options: dict[str, Any]) -> Function:
    """Compile a function with checks that raise."""
    from jax.experimental import checkify

    # The error is one more result, in front of those whose shardings nnx.jit gives.
    shardings = {"out_shardings": (None, options["out_shardings"])} if "out_shardings" in options else {}
    with_checks = compiler(checkify.checkify(step, errors=checkify.all_checks), **shardings)

    def call(*args: Any, **kwargs: Any) -> Any:
        error, results = with_checks(*args, **kwargs)
        error.throw()
        return results

    return call
