"""Whether the loss can teach the head: follows its weights from the loss call to the optimizer."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterable
from typing import Any
from weakref import ReferenceType, WeakSet, ref

import torch

from ctcguard_integrations.torch_provenance import Origin

SAMPLED_WEIGHTS = 64
SEARCHED_STEPS = 4
"""Steps in a row after which nobody looks for an optimizer of the head any more: the rule has spoken by then."""
WAITING_STEPS = 100
"""Steps of other optimizers in a row that the optimizer of the head may leave out, while gradients gather."""


class HeadState(threading.local):
    """Counts consecutive optimizer steps in which the head could not learn, of each thread by itself.

    The gradient of another thread's head must not even be asked for: its backward pass, which holds no lock, may be
    replacing it at that moment, and torch then reads freed memory.

    A step is what lies between two training calls with at least one optimizer step in between. What counts is judged
    when the next step begins, so that several optimizers taking turns in one step are seen together.

    A head may wait: for its optimizer, which steps more rarely than another one, or for its gradient, while CTC has no
    weight or a batch is skipped. So an optimizer that exists and holds the head is enough for a while, and a gradient
    of 0 counts only when nothing else in the step has one, and only with an optimizer that never moved the head before.
    """

    def __init__(self) -> None:
        self._steps = {"detached": 0, "frozen": 0, "not-in-optimizer": 0, "zeroed-before-step": 0}
        self._head: tuple[ReferenceType[torch.Tensor], ...] = ()
        self._weights: torch.Tensor | None = None
        self._owner: ReferenceType[torch.optim.Optimizer] | None = None
        self._waited = 0
        self._taught: WeakSet[torch.optim.Optimizer] = WeakSet()
        self._with_gradient = self._frozen = self._called = False
        self._stepped = self._held = self._zeroed = self._reached = self._others_reached = False

    def called(self, log_probs: torch.Tensor, origin: Origin, inside_step: bool = False) -> None:
        """A training call: the first one after an optimizer step closes the step before.

        Inside a step, in a closure, what the optimizer held when it was called was of no use to it.
        """
        if self._stepped:
            self._zeroed &= not inside_step
            self._close_step()
        self._called = True
        self._with_gradient |= log_probs.requires_grad
        self._frozen = origin.frozen
        if origin.head:
            self._head = origin.head

    @property
    def doubtful(self) -> bool:
        """Whether the last step that was followed did not move the head: then the next ones are followed too."""
        return self._waited > 0 or any(self._steps.values())

    def glimpsed(self, with_gradient: bool, inside_step: bool) -> None:
        """A training call that is not followed: it closes the step before, as any does."""
        if self._stepped:
            self._zeroed &= not inside_step
            self._close_step()
            self._called = False
        self._with_gradient |= with_gradient

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer is about to step."""
        if not self._called:
            return
        self._stepped = True
        head = self._weights_of_head()
        held = _among(head, optimizer)
        self._reached |= any(weight.grad is not None for weight in head)
        if held:
            self._held, self._owner, self._waited = True, ref(optimizer), 0
        if optimizer in self._taught:
            return
        if held and not _idle(held[:1]):
            self._taught.add(optimizer)
        elif held or not self._taught:
            self._zeroed |= bool(held)
            self._others_reached |= not _idle(parameters_of(optimizer))

    def readings(self) -> dict[str, Any]:
        """For CTC603: the state, for how many steps it has lasted, and the head's shape."""
        state, steps = max(self._steps.items(), key=lambda item: item[1])
        shapes = [tuple(weight.shape) for weight in self._weights_of_head()]
        name = f"the head of shape {max(shapes, key=len)}" if shapes else "the head"
        return {"head_state": state if steps else "learning", "head_steps": steps, "head_parameter": name}

    def _weights_of_head(self) -> list[torch.Tensor]:
        return [weight for weight in (reference() for reference in self._head) if weight is not None]

    def _close_step(self) -> None:
        detached = not self._with_gradient
        idle = self._reached and not self._held and not self._moved()
        now = {
            "detached": detached,
            "frozen": not detached and self._frozen,
            "not-in-optimizer": not detached and not self._frozen and idle and not self._waits(),
            "zeroed-before-step": not detached and self._zeroed and not self._others_reached,
        }
        self._steps = {state: self._steps[state] + 1 if holds else 0 for state, holds in now.items()}
        self._with_gradient = self._stepped = self._held = self._zeroed = self._reached = self._others_reached = False

    def _waits(self) -> bool:
        """Whether an optimizer that did not step holds the head. All objects are searched, in the first steps only."""
        head, owner = self._weights_of_head(), None if self._owner is None else self._owner()
        if (owner is None or not _among(head, owner)) and self._steps["not-in-optimizer"] < SEARCHED_STEPS:
            owner = next((optimizer for optimizer in _optimizers() if _among(head, optimizer)), None)
            self._owner, self._waited = None if owner is None else ref(owner), 0
        self._waited += 1
        return owner is not None and bool(_among(head, owner)) and self._waited <= WAITING_STEPS

    def _moved(self) -> bool:
        """Whether a sample of the weights changed since the last step; engines may update copies of the parameters."""
        weights = self._weights_of_head()
        if self._held or not weights:
            self._weights = None
            return False
        sample = weights[-1].detach().reshape(-1)[:SAMPLED_WEIGHTS].clone()
        before, self._weights = self._weights, sample
        return before is None or before.shape != sample.shape or not torch.equal(before, sample)


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """All parameters that an optimizer holds."""
    return [parameter for group in getattr(optimizer, "param_groups", ()) for parameter in group["params"]]


def _among(weights: list[torch.Tensor], optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Those of the weights that an optimizer holds."""
    ids = {id(parameter) for parameter in parameters_of(optimizer)}
    return [weight for weight in weights if id(weight) in ids]


def _idle(parameters: Iterable[torch.Tensor]) -> bool:
    """Whether an optimizer has nothing to apply to any of them."""
    return all(p.grad is None or (not p.grad.is_sparse and not p.grad.any()) for p in parameters)


def _optimizers() -> list[torch.optim.Optimizer]:
    """Every optimizer there is. Types are asked for, not objects: some proxies import something when they are asked."""
    return [thing for thing in gc.get_objects() if issubclass(type(thing), torch.optim.Optimizer)]
