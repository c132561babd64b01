"""`guard_step`: a JAX training step, compiled or not, that is judged each time it is called."""

from __future__ import annotations

import atexit
import functools
import types
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Generic, ParamSpec, TypeVar, overload

import jax
from jax.extend.core import get_opaque_trace_state

from ctcguard.errors import CTCVerdictError
from ctcguard.guard import Guard
from ctcguard.guarded import Guarded, name_of
from ctcguard.settings import load
from ctcguard_integrations import jax_seam
from ctcguard_integrations.jax_rebuild import rebuilt
from ctcguard_integrations.jax_recorder import Recorder
from ctcguard_integrations.late_wandb import outer_sinks

P = ParamSpec("P")
R = TypeVar("R")
_NOT_TRACING = get_opaque_trace_state()


class GuardedStep(Guarded, Generic[P, R]):
    """A training step under guard; made by `guard_step`. It takes and returns what the step itself does.

    Attributes
    ----------
    guard : Guard
        Counts and judges.
    step : callable
        The step as it was given.
    """

    def __init__(self, step: Callable[P, R], guard: Guard) -> None:
        super().__init__(guard)
        functools.update_wrapper(self, step, updated=())
        self.step = step
        self._recorder = Recorder(guard)
        self._recorder.compiled_earlier = isinstance(step, jax.stages.Compiled)
        self._run = rebuilt(step, self._recorder)
        jax_seam.install(self)
        _open.add(self)

    def batch(self, ids: Iterable[object]) -> None:
        """Name the utterances of the next call of the step; findings then show these names."""
        self._recorder.name(tuple(map(name_of, ids)))

    def flush(self) -> None:
        """Judge all steps started so far; this waits for the device."""
        if self._recorder.open:
            self._recorder.settle()

    def state_dict(self) -> dict[str, Any]:
        """As `Guarded.state_dict`, with all steps started so far."""
        self.flush()
        return super().state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As `Guarded.load_state_dict`; steps are counted on from there."""
        super().load_state_dict(state)
        self._recorder.step = self.guard.step

    def close(self) -> None:
        """Judge what is still on its way and write the last line of findings.jsonl. The step then runs unguarded."""
        if not self._recorder.open:
            return
        try:
            self._recorder.settle()
        finally:
            self._recorder.open = False
            _open.discard(self)
            jax_seam.uninstall(self)
            with self.guard.contained("close"):
                self.guard.at_step(self._recorder.step)
                # A loss that was traced was seen, though a run that failed leaves no readings of it.
                self.guard.close(excused=self._recorder.failed or not self._recorder.blind)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        recorder = self._recorder
        if not recorder.open:
            return self.step(*args, **kwargs)
        if get_opaque_trace_state() != _NOT_TRACING:  # part of a larger program, whose runs nobody counts here
            with jax_seam.active(recorder, recorder.key):
                return self.step(*args, **kwargs)
        recorder.ranks.meet((args, kwargs))
        recorder.failed = True  # until it has returned
        if self._run is not None:
            outputs = self._run(*args, **kwargs)  # which is traced beneath the recorder, and calls no loss otherwise
        else:
            with jax_seam.active(recorder, recorder.key):
                outputs = self.step(*args, **kwargs)
            recorder.returned([], outputs)
        recorder.failed = False
        recorder.stepped()
        return outputs  # type: ignore[no-any-return]

    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        """As a decorator in a class: the method of an object."""
        return self if owner is None else types.MethodType(self, owner)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the step has (``lower``, ``clear_cache`` …) is its own, without a guard."""
        if name.startswith("__") or name == "step":
            raise AttributeError(name)
        return getattr(self.step, name)


_open: weakref.WeakSet[GuardedStep[Any, Any]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for step in list(_open):
        with suppress(CTCVerdictError):
            step.close()


@overload
def guard_step(train_step: Callable[P, R], /, *, guard: Guard | None = None, **settings: Any) -> GuardedStep[P, R]: ...
@overload
def guard_step(*, guard: Guard | None = None, **settings: Any) -> Callable[[Callable[P, R]], GuardedStep[P, R]]: ...
def guard_step(train_step: Any = None, /, *, guard: Guard | None = None, **settings: Any) -> Any:
    """Guard a JAX training step: every ``optax.ctc_loss`` in it is checked, each time the step is called.

    Parameters
    ----------
    train_step : callable
        A plain function, or one from `jax.jit`, `nnx.jit` or `jax.pmap`, whose options (static and donated arguments,
        shardings) are kept. Without it, a decorator.
    guard : Guard, optional
        One made elsewhere, instead of settings.
    **settings
        The fields of `ctcguard.Settings`, for instance ``vocabulary=tokenizer``, ``on_error="log"``, ``run_dir=path``.

    Returns
    -------
    GuardedStep
        Called as the step itself; with ``findings``, ``verdicts``, ``run_dir``, ``guard``, ``flush()`` and ``close()``.

    Raises
    ------
    SettingsError
        For a setting that does not exist; the message lists those that do.
    CTCVerdictError
        Out of a call of the step, at the first finding whose reaction is ``raise`` or ``stop``: before the new state
        is handed back. What a rule finds in the history of the run (CTC7xx) may be raised one step later.

    Examples
    --------
    >>> import jax, optax
    >>> import jax.numpy as jnp
    >>> from ctcguard import guard_step
    >>> @guard_step(sinks=())
    ... @jax.jit
    ... def train_step(logits, labels):
    ...     loss = lambda x: optax.ctc_loss(x, jnp.zeros(x.shape[:2]), labels, jnp.zeros(labels.shape)).mean()
    ...     return logits - 0.1 * jax.grad(loss)(logits)
    >>> better = train_step(jnp.zeros((2, 20, 8)), jnp.asarray([[1, 2, 3], [4, 5, 6]]))
    >>> train_step.findings
    []
    >>> train_step.close()
    """
    if train_step is None:
        return functools.partial(guard_step, guard=guard, **settings)
    if isinstance(train_step, GuardedStep):
        if guard is None and not settings:
            return train_step
        train_step = train_step.step
    if guard is None:
        loaded = load(**settings)
        guard = Guard(loaded, outer_sinks(loaded))
    return GuardedStep(train_step, guard)


def observe(**call: Any) -> None:
    """Guard a CTC loss of your own: call this beside it, inside a guarded step. It works in `jax.jit`.

    Outside of a guarded step it does nothing, so that the same code runs with and without a guard.

    Parameters
    ----------
    **call
        As for `ctcguard.ctc_call`: ``log_probs`` (already normalised) or ``logits`` (the loss applies softmax),
        (batch, time, classes); ``targets``, ``input_lengths``, ``target_lengths``, ``blank``; ``losses`` (batch,)
        where they are known.

    Raises
    ------
    CallError
        If the shapes are not those of one CTC call.
    CTCVerdictError
        At a finding whose reaction is ``raise``, when the step is not traced.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ctcguard import observe
    >>> logits = jnp.zeros((1, 20, 4))
    >>> observe(logits=logits, targets=[[1, 2]], input_lengths=[20], target_lengths=[2], blank=0)
    """
    recorder, sheet = jax_seam.innermost()
    if isinstance(recorder, Recorder):
        recorder.observe(call, sheet)
