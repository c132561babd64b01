"""Every ``optax.ctc_loss`` of a process, without a step to wrap: for ``ctcguard run``.

A compiled loss reports by callback, in a thread of JAX's, before the step's outputs exist. Nothing can be raised there:
the main thread is interrupted instead, and raises as soon as it runs Python again. Of a small program the callback runs
in the main thread itself: what is raised there ends the program with an error of JAX's, and the verdict follows.
"""

from __future__ import annotations

import _thread
import logging
import signal
import threading
import types
from collections import Counter
from typing import Any

import jax
import numpy as np

from ctcguard.errors import CTCVerdictError
from ctcguard.guard import Guard
from ctcguard.settings import load
from ctcguard_integrations import jax_seam
from ctcguard_integrations.jax_measured import Measured, Site
from ctcguard_integrations.jax_recorder import Recorder
from ctcguard_integrations.late_wandb import outer_sinks

SIGNAL: int = getattr(signal, "SIGRTMAX", signal.SIGINT)
"""Never sent: only its handler is used. A real-time signal is the least likely to be used by the program."""

CALLBACKS, CALLBACK_LOG = "jax._src.callback", logging.getLogger("jax._src.debugging")
"""Where JAX runs callbacks, and tells of what they raise. By name: these modules are not ours to import."""


class ProcessRecorder(Recorder):
    """Judges at once. The steps of the program are not known: each run of a call, on all its devices, counts as one."""

    def __init__(self, guard: Guard) -> None:
        super().__init__(guard)
        self.verdict: CTCVerdictError | None = None
        self.steps = 0
        self._runs: Counter[tuple[str, str, int]] = Counter()
        self._last: dict[tuple[Site, int], np.ndarray[Any, Any]] = {}
        self._said: set[tuple[str, str]] = set()

    def arrived(self, measured: Measured, device: int) -> None:
        """A callback came: judge it while the step waits for its end."""
        site = measured.site
        with self._lock:
            before = self._last.get((site, device))
            if before is not None and np.array_equal(before, measured.packed, equal_nan=True):
                return  # computed twice, by jax.checkpoint
            self._last[site, device] = measured.packed
            # A new shape is a new site, but the same call; each device runs it once in a step.
            call = site.call.source, site.call.call_site, device
            self.step = self._runs[call]
            self._runs[call] += 1
            self.steps = max(self.steps, self._runs[call])
            try:
                self.judge(self._entry(self.step, "callback", measured, device))
            except CTCVerdictError as error:
                self.steps = self.step
                self._interrupt(error)

    def _interrupt(self, error: CTCVerdictError) -> None:
        key = error.verdict.code, error.verdict.cause
        if key not in self._said:
            self._said.add(key)
            self.verdict = error
            _thread.interrupt_main(SIGNAL)  # type: ignore[arg-type]


def _in_a_callback(frame: types.FrameType | None) -> bool:
    """Whether XLA is waiting for it."""
    while frame is not None:
        if frame.f_globals.get("__name__") == CALLBACKS:
            return True
        frame = frame.f_back
    return False


def _is_no_verdict(record: logging.LogRecord) -> bool:
    """JAX logs what a callback raises, with its traceback; a verdict has been shown."""
    return record.exc_info is None or not isinstance(record.exc_info[1], CTCVerdictError)


class ProcessWatch:
    """A guard of a whole process.

    Parameters
    ----------
    guard : Guard, optional
        One made elsewhere, and closed there; else one is made of the settings.
    **settings
        The fields of `ctcguard.Settings`.
    """

    def __init__(self, guard: Guard | None = None, **settings: Any) -> None:
        self.owns_guard = guard is None
        if guard is None:
            loaded = load(**settings)
            guard = Guard(loaded, outer_sinks(loaded))
        self.guard = guard
        self._recorder = ProcessRecorder(guard)
        self._previous: Any = None
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(SIGNAL, self._raise)
        CALLBACK_LOG.addFilter(_is_no_verdict)
        jax_seam.install(self, everywhere=self._recorder)

    def _raise(self, number: int, frame: Any) -> None:
        """In the main thread: raise what a callback found."""
        found = self._recorder.verdict
        if found is not None:
            if not _in_a_callback(frame):  # else JAX makes another error of it, and `close` says what it was
                self._recorder.verdict = None
            raise found
        if callable(self._previous):
            self._previous(number, frame)

    def close(self, failed: bool = False) -> None:
        """Wait for all callbacks, and raise what was found since the main thread last ran."""
        if not self._recorder.open:
            return
        jax.effects_barrier()
        self._recorder.open = False
        jax_seam.uninstall(self)
        CALLBACK_LOG.removeFilter(_is_no_verdict)
        if self._previous is not None:
            signal.signal(SIGNAL, self._previous)
        try:
            self._recorder.read(wait=True)
        finally:
            with self.guard.contained("close"):
                self._end(failed)
        if self._recorder.verdict is not None:
            raise self._recorder.verdict

    def _end(self, failed: bool) -> None:
        if self.owns_guard:
            if self._recorder.blind and not failed:
                self.guard.say_blind(framework="jax")
            self.guard.at_step(self._recorder.steps)
            # A loss that raised was seen, though not counted.
            self.guard.close(excused=failed or not self._recorder.blind)
