"""Any PyTorch loop: `watch` sees every ``torch.ctc_loss`` call, whoever makes it, and every optimizer step."""

from __future__ import annotations

import atexit
import contextlib
import functools
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, overload

import torch

from ctcguard._array import host_view, is_host, small_view
from ctcguard.call import CTCCall, ctc_call
from ctcguard.callsite import call_site
from ctcguard.errors import CallError, CTCStop, CTCVerdictError
from ctcguard.finding import Finding
from ctcguard.guard import Case, Guard
from ctcguard.probes import CONTRACT, DISTRIBUTION, measure
from ctcguard.settings import load
from ctcguard.verdict import Verdict
from ctcguard_integrations import torch_seam
from ctcguard_integrations.late_wandb import outer_sinks
from ctcguard_integrations.torch_gradients import Gradients
from ctcguard_integrations.torch_pending import Pending
from ctcguard_integrations.torch_provenance import Origin, origin

Function = TypeVar("Function", bound=Callable[..., Any])
REDUCTIONS = ("none", "mean", "sum")


class Watch:
    """A guard at work on PyTorch code; made by `watch`."""

    def __init__(self, guard: Guard, settings: dict[str, Any]) -> None:
        self.guard = guard
        self.thread = threading.get_ident()
        self._settings = settings
        self._pending = Pending()
        self._gradients = Gradients(guard, self._pending)
        self._origins: dict[tuple[Any, ...], Origin] = {}
        self._open = True
        torch_seam.add(self)
        atexit.register(self.close)

    @property
    def findings(self) -> list[Finding]:
        """What was found so far."""
        return self.guard.findings

    @property
    def verdicts(self) -> list[Verdict]:
        """One for each root cause found so far."""
        return self.guard.verdicts

    @property
    def run_dir(self) -> Path:
        """Where findings.jsonl goes."""
        return self.guard.run_dir

    @property
    def is_open(self) -> bool:
        """Whether it still watches."""
        return self._open

    def batch(self, ids: Iterable[object]) -> None:
        """Name the utterances of the coming calls, until the next optimizer step; findings then show these names."""
        self.guard.batch(ids)

    def close(self, failed: bool = False) -> None:
        """Stop watching, judge what is still on its way, write the last line of findings.jsonl. Twice is harmless."""
        if not self._open:
            return
        self._open = False
        torch_seam.remove(self)
        atexit.unregister(self.close)
        try:
            self.settle()
        finally:
            with self.guard.contained("close"):
                self.guard.close(failed)

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
        atexit.unregister(self.close)
        return _decorated(function, self._settings)

    def settle(self) -> None:
        """Judge all that was measured; waits for the device."""
        with self.guard.contained("reading"):
            self._pending.read(wait=True)

    # What the seam tells.

    def loss(self, original: Callable[..., torch.Tensor], **arguments: Any) -> torch.Tensor:
        """Judge the contract, compute per-utterance losses, reduce them as the caller asked, judge the rest."""
        case = None
        with self.guard.contained("torch.ctc_loss"):
            self._pending.read(wait=False)
            with contextlib.suppress(CallError):  # torch refuses such shapes with words of its own
                case = self._open_case(self._call(arguments), arguments["log_probs"])
        if case is None:
            return original(*arguments.values())
        reduction = arguments["reduction"]
        try:
            losses = original(*{**arguments, "reduction": 0}.values())
        except Exception:
            with self.guard.contained("torch.ctc_loss"):
                self.guard.abandon(case)
            raise
        result = torch_seam.reduced(losses, arguments["target_lengths"], reduction)
        with self.guard.contained("torch.ctc_loss"):
            self._measure(case, losses)
        return result

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
        scores: Any = call.get("log_probs", call.get("logits"))
        facts = {"framework": "torch", "source": "guard.observe", "call_site": call_site(2)}
        made = self._origin(scores, facts["call_site"])
        normal = ctc_call(**{**_detached(call), **facts, "provenance": made.provenance})
        with self.guard.contained("observe"):
            case = self._open_case(normal, scores)
            self._measure(case, normal.losses)

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """Before the weights are touched: look at the gradients, and wait for verdicts if one may raise."""
        with self.guard.contained("optimizer hook"):
            self._gradients.stepping(optimizer)
            self.await_verdict()

    def await_verdict(self) -> None:
        """Judge what was measured in this step: now if it could raise, else when it has arrived."""
        settings = self.guard.settings
        urgent = {settings.on_error, settings.on_warning} & {"raise", "stop"}
        self._pending.send()
        self._pending.read(wait=bool(urgent))

    def stepped(self) -> None:
        """Count the step."""
        with self.guard.contained("optimizer hook"):
            self.guard.stepped()

    # From torch's terms to the guard's.

    def _call(self, arguments: dict[str, Any]) -> CTCCall:
        log_probs = arguments["log_probs"]
        site = call_site(3)
        return ctc_call(
            **_detached({k: v for k, v in arguments.items() if k not in ("reduction", "zero_infinity")}),
            batch_first=False,
            reduction=REDUCTIONS[arguments["reduction"]],
            zero_infinity=bool(arguments["zero_infinity"]),
            framework="torch",
            source="torch.ctc_loss",
            call_site=site,
            provenance=self._origin(log_probs, site).provenance,
        )

    def _origin(self, scores: torch.Tensor, site: str) -> Origin:
        """Walked once for each call site, kind of graph and width."""
        node = scores.grad_fn
        key = (site, None if node is None else node.name(), scores.dtype, scores.shape[-1], scores.ndim)
        if key not in self._origins:
            self._origins[key] = origin(scores)
        return self._origins[key]

    def _open_case(self, call: CTCCall, scores: torch.Tensor) -> Case:
        train = torch.is_grad_enabled()
        early = self.guard.settings.strict or all(map(is_host, (call.targets, call.input_lengths, call.target_lengths)))
        case = self.guard.open(call, "train" if train else "eval", early)
        if train:
            self._gradients.called(scores, self._origin(scores, call.call_site))
        return case

    @torch.no_grad()
    def _measure(self, case: Case, losses: torch.Tensor | None) -> None:
        call = case.call if losses is None else case.call.with_losses(losses.detach().reshape(-1))
        probes = DISTRIBUTION if case.ran else CONTRACT + DISTRIBUTION
        packed, layout = measure(call, probes, beside=call.scores)
        if is_host(packed):
            self.guard.judge(case, packed, layout)
        else:
            case.call = call.without_arrays()
            self._pending.add(packed, lambda values: self.guard.judge(case, values, layout))


def _detached(arguments: dict[str, Any]) -> dict[str, Any]:
    """Views outside the graph; numpy views of what is on the host: targets, lengths, and scores if they are small."""
    views = {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}
    for name in ("targets", "input_lengths", "target_lengths"):
        views[name] = host_view(views[name])
    return views | {name: small_view(views[name]) for name in ("log_probs", "logits") if views.get(name) is not None}


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
