"""Whether the loss can teach the head: follows its weights from the loss call to the optimizer."""

from __future__ import annotations

from typing import Any
from weakref import ReferenceType

import torch

from ctcguard_integrations.torch_provenance import Origin

SAMPLED_WEIGHTS = 64


class HeadState:
    """Counts consecutive optimizer steps in which the head could not learn.

    A step is what lies between two training calls with at least one optimizer step in between. What counts is judged
    when the next step begins, so that several optimizers taking turns in one step are seen together.
    """

    def __init__(self) -> None:
        self._steps = {"detached": 0, "frozen": 0, "not-in-optimizer": 0, "zeroed-before-step": 0}
        self._head: tuple[ReferenceType[torch.Tensor], ...] = ()
        self._weights: torch.Tensor | None = None
        self._with_gradient = self._frozen = self._called = False
        self._stepped = self._held = self._zeroed = False

    def called(self, log_probs: torch.Tensor, origin: Origin) -> None:
        """A training call: the first one after an optimizer step closes the step before."""
        if self._stepped:
            self._close_step()
        self._called = True
        self._with_gradient |= log_probs.requires_grad
        self._frozen = origin.frozen
        if origin.head:
            self._head = origin.head

    def stepping(self, parameters: list[torch.Tensor]) -> None:
        """An optimizer is about to step over these parameters."""
        if not self._called:
            return
        self._stepped = True
        ids = {id(parameter) for parameter in parameters}
        held = [weight for weight in self._weights_of_head() if id(weight) in ids]
        self._held |= bool(held)
        self._zeroed |= bool(held) and all(weight.grad is None or not weight.grad.any() for weight in held[:1])

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
        moved = self._moved()
        now = {
            "detached": detached,
            "frozen": not detached and self._frozen,
            "not-in-optimizer": not detached and bool(self._head) and not self._frozen and not self._held and not moved,
            "zeroed-before-step": not detached and self._zeroed,
        }
        self._steps = {state: self._steps[state] + 1 if holds else 0 for state, holds in now.items()}
        self._with_gradient = self._stepped = self._held = self._zeroed = False

    def _moved(self) -> bool:
        """Whether a sample of the weights changed since the last step; engines may update copies of the parameters."""
        weights = self._weights_of_head()
        if self._held or not weights:
            self._weights = None
            return False
        sample = weights[-1].detach().reshape(-1)[:SAMPLED_WEIGHTS].clone()
        before, self._weights = self._weights, sample
        return before is None or before.shape != sample.shape or not torch.equal(before, sample)
