"""``ctcguard run``: a program that knows nothing of ctcguard, guarded from the import of its framework to its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import ModuleType, TracebackType
from typing import Any, Protocol

from ctcguard.errors import CTCGuardError, CTCVerdictError
from ctcguard.on_import import when_imported
from ctcguard.program import NoProgramError, Program, own_traceback

MISUSED = 2
STOPPED = 3


class Guard(Protocol):
    """A guard at work."""

    def close(self, failed: bool = False) -> None:
        """Leave the framework as it was; ``failed``: the program raised."""


class Guards:
    """The guards of one run: each starts when its framework has been imported.

    Parameters
    ----------
    settings : mapping
        Keyword arguments of `watch`; only those that were given.

    Attributes
    ----------
    running : dict
        The guards at work, by the name of their framework.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self.running: dict[str, Any] = {}
        self._process = os.getpid()
        self._seen: set[str] = set()

    def _start(self, name: str, module: ModuleType) -> None:
        self._seen.add(name)
        try:
            guard = FRAMEWORKS[name](self, module)
        except CTCGuardError as error:
            say(str(error))
            sys.exit(MISUSED)
        except Exception as fault:  # noqa: BLE001 - a fault of the guard must never reach the training
            say(f"no guard for {name} ({type(fault).__name__}: {fault}); the program goes on without")
        else:
            self.running |= {name: guard} if guard else {}

    def __enter__(self) -> Guards:
        """Wait for the frameworks; nothing is imported."""
        for name in FRAMEWORKS:
            when_imported(name, partial(self._start, name))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, NoProgramError):
            return
        try:
            self.close(failed=error is not None)
        except CTCVerdictError as verdict:
            went_well = error is None or (isinstance(error, SystemExit) and error.code in (None, 0))
            if went_well or str(verdict) in str(error):  # a framework may have put it into an error of its own
                raise

    def close(self, failed: bool = False) -> None:
        """End all guards, and say so when there was nothing to guard; a failed program may not have come so far."""
        if os.getpid() != self._process:
            return  # a fork of the program ends here; the guards are its parent's
        verdicts, guards = [], {id(own): own for each in self.running.values() if (own := getattr(each, "guard", None))}
        while self.running:
            name, guard = self.running.popitem()
            try:
                guard.close(failed)
            except CTCVerdictError as error:
                verdicts.append(error)
            except Exception as fault:  # noqa: BLE001 - the exit code stays the program's
                say(f"the guard for {name} could not be closed ({type(fault).__name__}: {fault})")
        last_words(guards.values())
        if verdicts:
            raise verdicts[0]
        if not self._seen:
            looked_for = ", ".join(dict.fromkeys(name.partition(".")[0] for name in FRAMEWORKS))
            say(f"nothing was guarded: the program imported none of the frameworks looked for ({looked_for})")


def _watch_torch(guards: Guards, torch: ModuleType) -> Guard:
    from ctcguard import watch

    jax = guards.running.pop("optax", None)
    if jax is None:
        return watch(**guards.settings)
    jax.owns_guard = False  # one run, one guard: torch's watch will close it
    both = watch(guard=jax.guard)
    guards.running |= {"torch": both, "optax": jax}  # closed in reverse
    return both


def _watch_optax(guards: Guards, optax: ModuleType) -> Guard:
    from ctcguard_integrations.jax_process import ProcessWatch  # noqa: TID251 - as ctcguard does it, lazily

    torch = guards.running.get("torch")
    return ProcessWatch(**guards.settings) if torch is None else ProcessWatch(torch.guard)


class _Joined:
    """The callback that every Trainer gets while the program runs."""

    def __init__(self, trainer: ModuleType, callback: object) -> None:
        self._callbacks: list[object] = trainer.DEFAULT_CALLBACKS
        self._callback = callback
        self._callbacks.append(callback)

    def close(self, failed: bool = False) -> None:
        self._callbacks.remove(self._callback)


def _join_trainers(guards: Guards, trainer: ModuleType) -> Guard | None:
    from ctcguard import CTCGuard

    torch = guards.running.get("torch")
    return None if torch is None else _Joined(trainer, CTCGuard(guard=torch))


# Called when the module has been imported; the running guards are there for those that join them.
FRAMEWORKS: Mapping[str, Callable[[Guards, ModuleType], Guard | None]] = {
    "torch": _watch_torch,
    "transformers.trainer": _join_trainers,
    "optax": _watch_optax,
}


def check(program: Program, settings: Mapping[str, Any]) -> None:
    """See before the run whether it can work, without importing more than needed.

    Raises
    ------
    CTCGuardError
        If the program is not there, or the rules selected are not.
    """
    program.look()
    if settings.keys() & {"select", "ignore"}:
        from ctcguard.settings import load

        load(**settings)


def run(program: Program, settings: Mapping[str, Any]) -> None:
    """Run a program under guard. What it raises leaves here, and the interpreter shows it as if there were no guard.

    Parameters
    ----------
    program : Program
        What to run.
    settings : mapping
        Keyword arguments of `watch`.

    Raises
    ------
    SystemExit
        The program's own; 3 when a verdict ended it (the guard has shown it), 2 when there was nothing to run.
    """
    try:
        with Guards(settings):
            program.execute()
    except CTCVerdictError:
        sys.exit(STOPPED)
    except NoProgramError as error:
        say(str(error))
        sys.exit(MISUSED)
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook = partial(_show, sys.excepthook)
        raise


def _show(hook: Callable[..., object], kind: type[BaseException], error: BaseException, *_: object) -> None:
    """Hand an exception to the program's own hook, without the frames of ctcguard."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.__traceback__ = own_traceback(link.__traceback__)
        link = link.__cause__ or link.__context__
    hook(kind, error, error.__traceback__)


def last_words(guards: Iterable[Any]) -> None:
    """Show how a run ended."""
    for guard in guards:
        if guard.settings.sinks == "auto" or "console" in guard.settings.sinks:
            with suppress(AttributeError, OSError, ValueError):
                _last_words(guard)


def _last_words(guard: Any) -> None:
    """Of a run that went well only to a person, and of several ranks the first one's."""
    from rich.console import Console

    from ctcguard.ending import ending

    console = Console(stderr=True, highlight=False)
    shown = [verdict for verdict in guard.verdicts if verdict.action != "log"]
    if guard.place.rank == 0 and (shown or console.is_terminal):
        console.print(ending(shown, guard.end_record(), guard.run_dir))


def say(text: str) -> None:
    """One line on stderr, unless the program has closed it."""
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"ctcguard: {text}\n")
