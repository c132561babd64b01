"""The one place where optax is touched: `ctc_loss_with_forward_probs`, which `ctc_loss` calls too.

The body of the function is exchanged, not a name: so every reference to it is seen, however early it was imported.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import jax
import optax
from jax.extend.core import find_top_trace

from ctcguard.guard import Guard
from ctcguard_integrations.jax_measured import Measured

Results = tuple[jax.Array, ...]
"""Losses (batch,), and the forward log-probs of ending with the blank and with a label, where somebody wants them."""
Original = Callable[..., Results]
PATCHED = optax.ctc_loss_with_forward_probs
SIGNATURE = inspect.signature(PATCHED)


class Recorder(Protocol):
    """What the seam tells."""

    blind: bool
    guard: Guard

    def calling(self, arguments: dict[str, Any], source: str) -> None:
        """A loss is about to be computed or traced; what is raised here leaves the user's call."""

    def called(self, arguments: dict[str, Any], source: str, result: Results, sheet: Sheet | None) -> None:
        """It was; ``result`` is what its caller gets."""


class Sheet:
    """What is measured during one trace of a step, to leave it as further outputs.

    Parameters
    ----------
    recorder : Recorder
        Whose step it is.
    look : array of bool, ()
        Whether scores are looked at when the step runs.
    """

    def __init__(self, recorder: Recorder, look: Any) -> None:
        self.recorder = recorder
        self.look = look
        self.measured: list[Measured] = []
        self._trace = find_top_trace(())

    def takes(self, measured: Any) -> bool:
        """Whether all of it belongs to the trace of the step itself, not to one inside it (scan, jit, checkpoint)."""
        arrays = [array for array in jax.tree.leaves(measured) if isinstance(array, jax.core.Tracer)]
        return all(getattr(array, "_trace", None) is self._trace for array in arrays)


class _Active(threading.local):
    """Recorders at work in this thread, the innermost last, each with its sheet while its step is traced."""

    def __init__(self) -> None:
        self.stack: list[tuple[Recorder, Sheet | None]] = []


_active = _Active()
_everywhere: list[Recorder] = []
_users: list[object] = []
_lock = threading.RLock()
_seam_context: Callable[[object], AbstractContextManager[None]] = jax.make_user_context(None)


@contextmanager
def active(recorder: Recorder, key: object, sheet: Sheet | None = None) -> Iterator[None]:
    """Tell this recorder of the losses called in this block.

    ``key`` is part of JAX's own cache keys, so that functions traced without the guard are traced again, once.
    """
    _active.stack.append((recorder, sheet))
    try:
        with _seam_context(key):
            yield
    finally:
        _active.stack.pop()


def innermost() -> tuple[Recorder | None, Sheet | None]:
    """The recorder to be told, and the sheet of its step."""
    if _active.stack:
        return _active.stack[-1]
    return (_everywhere[-1] if _everywhere else None), None


def noticed() -> None:
    """A loss was seen: the recorder of the whole process is not blind, though only the innermost is told."""
    for recorder in _everywhere:
        recorder.blind = False
        recorder.guard.aware = True


def _ctcguard_body(*args: Any, **kwargs: Any) -> Any:
    return _ctcguard_seam(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821 - found in optax's module


def _copy(function: Any) -> Original:
    copy = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return functools.update_wrapper(copy, function)


def _seam(original: Original, *args: Any, **kwargs: Any) -> Results:
    recorder, sheet = innermost()
    if recorder is None:
        return original(*args, **kwargs)
    try:
        bound = SIGNATURE.bind(*args, **kwargs)
    except TypeError:
        return original(*args, **kwargs)  # which says what is wrong in its own words
    bound.apply_defaults()
    by_ctc_loss = sys._getframe(2).f_code is optax.ctc_loss.__code__
    source = "optax.ctc_loss" if by_ctc_loss else "optax.ctc_loss_with_forward_probs"
    noticed()
    recorder.calling(bound.arguments, source)
    result = original(*args, **kwargs)
    # To keep what `optax.ctc_loss` drops would cost the compiled step its memory.
    recorder.called(bound.arguments, source, result[:1] if by_ctc_loss else result, sheet)
    return result


def install(user: object, everywhere: Recorder | None = None) -> None:
    """Look at the calls, for as long as ``user`` has not uninstalled; ``everywhere``: in all threads."""
    with _lock:
        if not _users:
            original = _copy(PATCHED)
            PATCHED.__globals__["_ctcguard_seam"] = functools.partial(_seam, original)
            PATCHED.__signature__ = SIGNATURE
            PATCHED.__kwdefaults__ = None
            PATCHED.__code__ = _ctcguard_body.__code__
        _users.append(user)
        if everywhere is not None:
            _everywhere.append(everywhere)


def uninstall(user: object) -> None:
    """With the last user, optax is as it was before."""
    with _lock:
        if user not in _users:
            return
        _users.remove(user)
        _everywhere[:] = [recorder for recorder in _everywhere if recorder is not user]
        if not _users:
            original = PATCHED.__globals__.pop("_ctcguard_seam").args[0]
            PATCHED.__code__, PATCHED.__kwdefaults__ = original.__code__, original.__kwdefaults__
            del PATCHED.__signature__
