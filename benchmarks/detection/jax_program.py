"""What a JAX program does, seen from outside: its compiled functions, its steps, the losses that it gets."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import jax
import optax

Function = Callable[..., Any]
Options = dict[str, Any]


class JaxSteps:
    """Counts training steps: calls, from Python, of a compiled function in which the CTC loss stands.

    JAX programs have no optimizer that could be asked. A call that raises is not counted, so that what is said of it is
    said at its own step.

    Parameters
    ----------
    compiled : callable
        Given ``jax.jit`` or ``jax.pmap`` with the program's options (more of them override these), a function, and the
        options, returns what Python calls.
    """

    def __init__(
        self, compiled: Callable[[Function, Function, Options], Function] = lambda compiler, step, _: compiler(step)
    ) -> None:
        self.taken = 0
        self.compiled = compiled
        self._running: list[_Compiled] = []

    @contextmanager
    def counting(self) -> Iterator[None]:
        """While the program runs."""
        with ExitStack() as stack:
            for name in ("jit", "pmap"):
                stack.enter_context(mock.patch.object(jax, name, self._compiling(getattr(jax, name))))
            loss = self._noticing(optax.ctc_loss)
            for module in (optax, optax.losses):
                stack.enter_context(mock.patch.object(module, "ctc_loss", loss))
            yield

    def _compiling(self, original: Function) -> Function:
        @functools.wraps(original)
        def compiling(function: Function, *args: Any, **options: Any) -> _Compiled:
            return _Compiled(self, lambda inner, **more: original(inner, *args, **options | more), function, options)

        return compiling

    def _noticing(self, original: Function) -> Function:
        @functools.wraps(original)
        def ctc_loss(*args: Any, **kwargs: Any) -> Any:
            losses = original(*args, **kwargs)
            if self._running:
                self._running[0].has_loss = True
            else:
                self.taken += 1
            return losses

        return ctc_loss

    def call(self, compiled: _Compiled, args: Any, kwargs: Any) -> Any:
        """Call it; the outermost one is a step if it has the loss."""
        outermost = not self._running
        self._running.append(compiled)
        try:
            results = (compiled.outermost if outermost else compiled.inner)(*args, **kwargs)
        finally:
            self._running.pop()
        if outermost:
            jax.effects_barrier()  # what was reported from inside belongs to this step
            self.taken += compiled.has_loss
        return results


class _Compiled:
    """Stands for what ``jax.jit`` or ``jax.pmap`` returns."""

    def __init__(self, steps: JaxSteps, compiler: Function, function: Function, options: Options) -> None:
        self.inner = compiler(function)
        self.outermost = steps.compiled(compiler, function, options)
        self.has_loss = False
        self._steps = steps
        functools.update_wrapper(self, self.inner, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._steps.call(self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@contextmanager
def losses(seen: Callable[[Any], None]) -> Iterator[None]:
    """Tell of every value that ``value_and_grad`` computes, in the order in which they are."""

    def reporting(original: Function) -> Function:
        @functools.wraps(original)
        def value_and_grad(*args: Any, **kwargs: Any) -> Function:
            function = original(*args, **kwargs)
            with_auxiliary = kwargs.get("has_aux", False)

            @functools.wraps(function)
            def reported(*inputs: Any, **named: Any) -> Any:
                value, gradient = function(*inputs, **named)
                jax.debug.callback(seen, value[0] if with_auxiliary else value)
                return value, gradient

            return reported

        return value_and_grad

    from flax import nnx

    with ExitStack() as stack:
        for module in (jax, nnx):
            stack.enter_context(mock.patch.object(module, "value_and_grad", reporting(module.value_and_grad)))
        yield
