"""Any PyTorch loop: `watch` sees every ``torch.ctc_loss`` call, whoever makes it, and every optimizer step."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, overload

import torch

from ctcguard.case import Case, Passing
from ctcguard.errors import CallError, CTCStop, CTCVerdictError
from ctcguard.guard import Guard
from ctcguard.guarded import Guarded
from ctcguard.settings import load
from ctcguard_integrations import torch_seam
from ctcguard_integrations.late_wandb import outer_sinks
from ctcguard_integrations.torch_capture import Capture
from ctcguard_integrations.torch_gradients import Gradients
from ctcguard_integrations.torch_model import ModelProbe
from ctcguard_integrations.torch_pending import Pending
from ctcguard_integrations.torch_ranks import Ranks
from ctcguard_integrations.torch_scaler import Scales

Function = TypeVar("Function", bound=Callable[..., Any])


class Watch(Guarded):
    """A guard at work on PyTorch code; made by `watch`."""

    def __init__(self, guard: Guard, settings: dict[str, Any]) -> None:
        super().__init__(guard)
        self.thread = threading.get_ident()
        self._process = os.getpid()
        self.aware = False
        self._settings = settings
        self._pending = Pending()
        self._gradients = Gradients(guard, self._pending)
        self._scales = Scales(guard, self._pending)
        self._capture = Capture(guard, self._pending, self._gradients)
        self._model = ModelProbe(guard)
        self.ranks = Ranks(guard)
        self._open = True
        torch_seam.add(self)
        atexit.register(self.close)

    @property
    def is_open(self) -> bool:
        """Whether it still watches."""
        return self._open

    def close(self, failed: bool = False) -> None:
        """Stop watching, judge what is still on its way, write the last line of findings.jsonl. Twice is harmless.

        A fork of the process writes no last line: the run is its parent's.
        """
        if not self._open:
            return
        self._open = False
        torch_seam.remove(self)
        self._model.close()
        atexit.unregister(self.close)
        try:
            self.settle()
        finally:
            if os.getpid() == self._process:
                with self.guard.contained("close"):
                    self.guard.close(failed or self.aware)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        try:
            self.close(failed=error is not None)
        except CTCVerdictError:
            if error is None:
                raise
        return isinstance(error, CTCStop) and error.verdict is self.guard.reporter.stop

    def __call__(self, function: Function) -> Function:
        """As a decorator with settings: each call of the function gets a guard of its own; this one is taken back."""
        self._open = False
        torch_seam.remove(self)
        self._model.close()
        atexit.unregister(self.close)
        return _decorated(function, self._settings)

    def settle(self) -> None:
        """Judge all that was measured; waits for the device."""
        with self.guard.contained("reading"):
            self._pending.read(wait=True)

    def state_dict(self) -> dict[str, Any]:
        """As `Guarded.state_dict`, with what was measured up to now."""
        self.settle()
        return super().state_dict()

    # What the seam tells.

    def loss(self, original: Callable[..., torch.Tensor], **arguments: Any) -> torch.Tensor:
        """Judge the contract, compute the loss as the caller asked, judge the rest."""
        case = None
        with self.guard.contained("torch.ctc_loss"):
            self.ranks.meet()
            self._pending.read(wait=False)
            with contextlib.suppress(CallError):  # torch refuses such shapes with words of its own
                case = self._capture.open_torch(arguments)
        if case is None:
            return original(*arguments.values())
        try:
            result, losses = torch_seam.with_losses(original, **arguments)
        except Exception:
            with self.guard.contained("torch.ctc_loss"):
                self.guard.abandon(case)
            raise
        with self.guard.contained("torch.ctc_loss"):
            self._measure("torch.ctc_loss", case, losses, arguments["log_probs"])
        return result

    def _measure(self, source: str, taken: Case | Passing, losses: Any, scores: Any) -> None:
        """Measure and judge; where that fails, what is known of the call already is still said."""
        try:
            case = self._capture.measure(taken, scores, losses)
        except CTCVerdictError:
            raise
        except Exception as error:  # noqa: BLE001 - becomes CTC902
            self.guard.reporter.fault(source, "capture", error)
            self.guard.abandon(taken)
        else:
            if case is not None:
                self._model.called(case, scores)

    def observe(self, **call: Any) -> None:
        """Guard a CTC loss that does not go through ``torch.ctc_loss`` (k2, warp-ctc, own code).

        Parameters
        ----------
        **call
            As for `ctcguard.call.ctc_call`: ``log_probs`` or ``logits``, (batch, time, classes) or, with
            ``batch_first=False``, (time, batch, classes); ``targets``, ``input_lengths``, ``target_lengths``,
            ``blank``; ``losses`` (batch,) where they are known.

        Raises
        ------
        CallError
            If the shapes are not those of one CTC call.
        CTCVerdictError
            At a finding whose reaction is ``raise``.
        """
        normal = self._capture.observed_call(call)
        torch_seam.seen()
        with self.guard.contained("observe"):
            self.ranks.meet()
            case = self._capture.open(normal, call.get("log_probs", call.get("logits")))
            self._measure("observe", case, normal.losses, call.get("log_probs", call.get("logits")))

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """Before the weights are touched: look at the gradients, and wait for verdicts if one may raise."""
        with self.guard.contained("optimizer hook"):
            self.guard.check_heads("watch(vocabulary=...)")
            self._gradients.stepping(optimizer)
            self.await_verdict()
            self.ranks.stepping(optimizer)

    def await_verdict(self) -> None:
        """Judge what was measured in this step: now if it could raise, else when it has arrived. The model once."""
        settings = self.guard.settings
        urgent = {settings.on_error, settings.on_warning} & {"raise", "stop"}
        self._pending.send()
        self._pending.read(wait=bool(urgent))
        self._model.examine()
        self.ranks.poll()

    def stepped(self) -> None:
        """Count the step."""
        with self.guard.contained("optimizer hook"):
            self.guard.stepped()

    def scaled(self, scaler: torch.amp.GradScaler, by_hand: bool) -> None:
        """Follow the loss scale."""
        with self.guard.contained("GradScaler.update"):
            self._scales.updated(scaler, by_hand)


def _decorated(function: Function, settings: dict[str, Any]) -> Function:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with watch(**settings):
            return function(*args, **kwargs)

    return guarded  # type: ignore[return-value]


@overload
def watch(function: Function, /) -> Function: ...
@overload
def watch(*, guard: Guard | None = None, **settings: Any) -> Watch: ...
def watch(function: Callable[..., Any] | None = None, /, *, guard: Guard | None = None, **settings: Any) -> Any:
    """Guard every CTC loss call of PyTorch code, from now until it is closed.

    A context manager (``with watch() as guard: train()``), a decorator (``@watch`` or ``@watch(on_error="alert")``)
    and a plain call (``guard = watch()`` … ``guard.close()``). Of guards inside guards, the innermost one judges.

    Parameters
    ----------
    function : callable, optional
        The function to guard, when used as ``@watch``.
    guard : Guard, optional
        One made elsewhere, instead of settings.
    **settings
        The fields of `ctcguard.Settings`, for instance ``vocabulary=tokenizer``, ``on_error="stop"``, ``run_dir=path``.

    Returns
    -------
    Watch
        With ``findings``, ``verdicts``, ``run_dir``, ``batch(ids)``, ``observe(...)``, ``settle()`` and ``close()``.

    Raises
    ------
    SettingsError
        For a setting that does not exist; the message lists those that do.
    CTCVerdictError
        Out of the guarded code, at the first finding whose reaction is ``raise``: before the loss is computed, or
        before an optimizer steps.

    Examples
    --------
    >>> import torch
    >>> from ctcguard import watch
    >>> with watch(sinks=()) as guard:
    ...     log_probs = torch.randn(50, 2, 20, requires_grad=True).log_softmax(-1)
    ...     loss = torch.nn.CTCLoss()(log_probs, torch.randint(1, 20, (2, 5)), (50, 50), (5, 5))
    >>> guard.findings
    []
    """
    if function is not None:
        return _decorated(function, settings)
    if guard is None:
        loaded = load(**settings)
        guard = Guard(loaded, outer_sinks(loaded))
    return Watch(guard, settings)
