"""Gradients just before an optimizer uses them: finite, and reaching the head."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from math import isfinite
from typing import Any

import numpy as np
import torch

from ctcguard._array import HostArray, is_host
from ctcguard.guard import Guard
from ctcguard.probes.gradients import gradient_abs_max
from ctcguard_integrations.torch_head import HeadState, parameters_of
from ctcguard_integrations.torch_pending import Pending
from ctcguard_integrations.torch_provenance import Origin
from ctcguard_integrations.torch_values import square_sum


class Gradients:
    """Measures the gradients of steps that follow a training call."""

    def __init__(self, guard: Guard, pending: Pending) -> None:
        self._guard = guard
        self._pending = pending
        self._head = HeadState()
        self._checked: set[int] | None = None
        self._steps_before = -1

    def called(self, log_probs: torch.Tensor, made: Origin) -> None:
        """A training call."""
        self._checked = set()
        self._head.called(log_probs, made, inside_step=self._guard.steps_taken == self._steps_before)
        readings = self._head.readings()
        if readings["head_state"] != "learning":
            self._guard.check_step(readings, "optimizer")

    def glimpsed(self, log_probs: torch.Tensor, made: Callable[[], Origin]) -> None:
        """A training call that is not measured further; its head is followed only while that is in doubt."""
        if self._head.doubtful:
            self.called(log_probs, made())
            return
        self._checked = set()
        inside_step = self._guard.steps_taken == self._steps_before
        self._head.glimpsed(log_probs.requires_grad, inside_step)

    @torch.no_grad()
    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer is about to step: once for each after a CTC call, and never while AMP scales the gradients."""
        self._steps_before = self._guard.steps_taken
        self._head.stepping(optimizer)
        if self._checked is None or id(optimizer) in self._checked or getattr(optimizer, "found_inf", None) is not None:
            return
        self._checked.add(id(optimizer))
        if self._guard.brief and all(_starts_finite(_local(p.grad)) for p in _ends(optimizer)):
            return  # huge numbers only cost a closer look
        holders = [(number, p) for number, p in enumerate(parameters_of(optimizer)) if _has_gradient(p)]
        if not holders:
            return
        largest = gradient_abs_max([_local(p.grad) for _, p in holders])
        # An optimizer does not know the names of its parameters, and when this is judged, other gradients may be there.
        names = [f"parameter {number} of shape {tuple(p.shape)}" for number, p in holders]
        source = f"{type(optimizer).__name__}.step"

        def judge(values: HostArray) -> None:
            if np.all(values < np.inf):
                return
            first = names[int(np.argmin(values < np.inf))]
            self._guard.check_step({"gradient_abs_max": float(np.max(values)), "gradient_parameter": first}, source)

        if is_host(largest):
            judge(largest.numpy())
        else:
            self._pending.add(largest, judge)


def _ends(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The first and the last parameter with a dense gradient: what breaks in between reaches the input's."""
    groups = getattr(optimizer, "param_groups", ())
    forwards = (p for group in groups for p in group["params"])
    backwards = (p for group in reversed(groups) for p in reversed(group["params"]))
    return [p for ends in (forwards, backwards) for p in islice(filter(_has_gradient, ends), 1)]


def _starts_finite(gradient: torch.Tensor) -> bool:
    """Whether the first row is finite; not where that would wait for a device."""
    return gradient.is_cpu and isfinite(square_sum(gradient, 0 if gradient.ndim else ()))


def _has_gradient(parameter: torch.Tensor) -> bool:
    gradient = parameter.grad
    return gradient is not None and not gradient.is_sparse and _local(gradient).numel() > 0


def _local(gradient: Any) -> torch.Tensor:
    """The part of a sharded gradient that lies on this rank; a plain one as it is."""
    local: torch.Tensor = gradient.to_local() if hasattr(gradient, "to_local") else gradient
    return local
