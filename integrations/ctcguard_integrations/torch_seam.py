"""The one place where torch is touched, while an observer is there: ``torch.ctc_loss`` and the optimizer hooks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ctcguard_integrations import torch_scaler


class Observer(Protocol):
    """What the seam tells."""

    thread: int
    aware: bool
    """Whether a call was seen while it was there, by whomever."""

    def loss(self, original: Callable[..., torch.Tensor], **arguments: Any) -> torch.Tensor:
        """Compute the loss with the original function; the result must be bit-equal to its own."""

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer is about to step."""

    def stepped(self) -> None:
        """An optimizer has stepped."""

    def scaled(self, scaler: torch.amp.GradScaler, by_hand: bool) -> None:
        """A scaler was updated."""


LONGEST_REDUCTION = 4
"""Nodes from what ``torch.ctc_loss`` returns to the loss itself, that one included."""

_observers: list[Observer] = []
_handles: list[Any] = []
_lock = threading.RLock()
_original = torch.ctc_loss


def _current() -> Observer | None:
    """The innermost observer opened by this thread, else the innermost of all."""
    observers = list(_observers)
    if len(observers) < 2:
        return observers[0] if observers else None
    here = threading.get_ident()
    mine = [observer for observer in observers if observer.thread == here]
    nearest = mine or observers
    return nearest[-1] if nearest else None


@torch._disable_dynamo  # type: ignore[attr-defined]
def ctc_loss(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: int = 1,
    zero_infinity: bool = False,
) -> torch.Tensor:
    """Stands in for ``torch.ctc_loss`` while an observer is there.

    Under torch.compile it runs outside the graph, as the original does too (its kernel reads values); so no graph break
    is added. dynamo is imported by the first call at the latest, as by any optimizer.
    """
    observer = _current()
    if observer is None or _has_no_values(log_probs):
        return _original(log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity)
    seen()
    return observer.loss(
        _original,
        log_probs=log_probs,
        targets=targets,
        input_lengths=input_lengths,
        target_lengths=target_lengths,
        blank=blank,
        reduction=reduction,
        zero_infinity=zero_infinity,
    )


def seen() -> None:
    """A loss was seen: no observer that is there now can be called blind, though only the innermost is told."""
    for observer in _observers:
        observer.aware = True


def _has_no_values(tensor: torch.Tensor) -> bool:
    """Whether nothing can be read of a tensor: inside torch.func, or a fake one on the CPU while a model is traced."""
    fake = type(tensor).__name__ == "FakeTensor" and tensor.device.type == "cpu"
    return fake or tensor.is_meta or torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _stepping(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    observer = _current()
    if observer is not None:
        observer.stepping(optimizer)


def _stepped(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    observer = _current()
    if observer is not None:
        observer.stepped()


def _scaled(scaler: torch.amp.GradScaler, by_hand: bool) -> None:
    observer = _current()
    if observer is not None:
        observer.scaled(scaler, by_hand)


def add(observer: Observer) -> None:
    """From now on the observer sees the calls; the innermost one of a thread is the only one told."""
    global _original
    with _lock:
        if torch.ctc_loss is not ctc_loss:
            _original = torch.ctc_loss
            torch.ctc_loss = ctc_loss
        if not _handles:
            _handles.extend((register_optimizer_step_pre_hook(_stepping), register_optimizer_step_post_hook(_stepped)))
        torch_scaler.install(_scaled)
        _observers.append(observer)


def remove(observer: Observer) -> None:
    """The observer sees nothing more; with the last one, torch is as it was before."""
    with _lock:
        if observer in _observers:
            _observers.remove(observer)
        if _observers:
            return
        if torch.ctc_loss is ctc_loss:
            torch.ctc_loss = _original
        torch_scaler.uninstall()
        while _handles:
            _handles.pop().remove()


def with_losses(original: Callable[..., torch.Tensor], **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute a loss as it was asked for, and those of its utterances, (batch,) or (), before the reduction.

    Where there is a graph, the call is the user's own, and its node tells the losses: it keeps them for the backward
    pass. Else they are computed, and reduced by the same ATen operations as in ``torch.ctc_loss``, bit for bit alike.

    Returns
    -------
    result, losses : torch.Tensor
        Both with their graph. Off a node the losses are as they were before ``zero_infinity`` made 0 of infinities.
    """
    if torch.is_grad_enabled() and arguments["log_probs"].requires_grad:
        result = original(*arguments.values())
        kept = _kept(result.grad_fn)
        if kept is not None:
            return result, kept
        with torch.no_grad():
            return result, original(*{**arguments, "reduction": 0}.values())
    losses = original(*{**arguments, "reduction": 0}.values())
    return reduced(losses, arguments["target_lengths"], arguments["reduction"]), losses


def _kept(node: Any) -> torch.Tensor | None:
    """The losses of the utterances, off the graph of a loss: a sum or a quotient, of losses without infinities."""
    for _ in range(LONGEST_REDUCTION):
        if node is None or hasattr(node, "_saved_result0"):
            break
        node = next((child for child, _ in node.next_functions if child is not None), None)
    kept: torch.Tensor | None = getattr(node, "_saved_result0", None) if "CtcLoss" in type(node).__name__ else None
    return kept


def reduced(losses: torch.Tensor, target_lengths: Any, reduction: int) -> torch.Tensor:
    """Per-utterance losses reduced by the same ATen operations as ``torch.ctc_loss``, so bit for bit the same.

    Parameters
    ----------
    losses : torch.Tensor, (batch,) or ()
        From ``reduction="none"``.
    target_lengths : tensor or sequence of int, (batch,)
        For ``mean``: each loss is divided by its target length, at least 1.
    reduction : int
        0 none, 1 mean, 2 sum, as ``torch.nn.functional`` numbers them.
    """
    if reduction == 1:
        lengths = torch.as_tensor(target_lengths).to(device=losses.device, dtype=losses.dtype)
        return (losses / lengths.clamp_min(1)).mean()
    return losses.sum() if reduction == 2 else losses
