"""From torch's terms to the guard's: a loss call becomes a CTCCall, is measured, and is handed to the guard."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf, isnan
from typing import Any

import numpy as np
import torch

from ctcguard._array import HostArray, as_array, host_view, is_host
from ctcguard.call import CTCCall, Gone, ctc_call
from ctcguard.callsite import call_site
from ctcguard.case import Case, Passing
from ctcguard.finding import Phase
from ctcguard.guard import Guard
from ctcguard.probes import CONTRACT, evidence, measure, read
from ctcguard.sound import Given
from ctcguard_integrations.hf_labels import given_labels
from ctcguard_integrations.torch_gradients import Gradients
from ctcguard_integrations.torch_pending import DeviceTime, Pending
from ctcguard_integrations.torch_posterior import wrong_gradient
from ctcguard_integrations.torch_provenance import Origin, origin, same_head
from ctcguard_integrations.torch_values import square_sum

LABELS = ("targets", "input_lengths", "target_lengths")
LAST_FRAMES = np.s_[..., -1:, :]
REDUCTIONS = ("none", "mean", "sum")


class Capture:
    """Opens and measures the cases of one guard.

    Parameters
    ----------
    guard : Guard
        Told of every call.
    pending : Pending
        Takes measurements that are still on a device.
    gradients : Gradients
        Told of every training call.
    """

    def __init__(self, guard: Guard, pending: Pending, gradients: Gradients) -> None:
        self._guard = guard
        self._pending = pending
        self._gradients = gradients
        self._origins: dict[tuple[Any, ...], Origin] = {}
        self._altering: set[str] = set()
        self._sites: dict[Phase, str] = {}

    def open_torch(self, arguments: dict[str, Any]) -> Case | Passing:
        """Hand a call of ``torch.ctc_loss`` to the guard.

        Raises
        ------
        CallError
            For shapes that torch refuses too.
        """
        given = arguments["log_probs"]
        scores = given.detach().transpose(0, 1) if given.ndim == 3 else given.detach()
        labels = {name: as_array(_on_host(arguments[name])) for name in LABELS}
        before_removal = _on_host(given_labels())
        make = partial(
            ctc_call,
            **labels,
            blank=arguments["blank"],
            reduction=REDUCTIONS[arguments["reduction"]],
            zero_infinity=bool(arguments["zero_infinity"]),
            framework="torch",
            source="torch.ctc_loss",
            given_labels=before_removal,
        )
        phase = self._arrived()
        if self._guard.brief and not _ends_in_numbers(scores):
            self._guard.look()
        if self._guard.brief and scores.ndim == 3 and all(type(array) is np.ndarray for array in labels.values()):
            seen = Given(tuple(scores.shape), **labels, blank=arguments["blank"], given_labels=before_removal)
            gone = Gone((scores.shape[0], 0, 0), scores.dtype)
            later = partial(make, log_probs=gone, call_site=self._sites.get(phase, ""))
            passing = self._guard.glimpse(seen, later, phase)
            if passing is not None:
                if phase == "train":
                    self._gradients.glimpsed(given, lambda: self._origin(given, self._sites.get(phase, "")))
                return passing
        return self._open(make(log_probs=scores, call_site=call_site(3)), given, phase)

    def observed_call(self, call: dict[str, Any]) -> CTCCall:
        """What the user said of a loss of their own, in the normal form."""
        facts = {"framework": "torch", "source": "guard.observe", "call_site": call_site(3)}
        return ctc_call(**{**_detached(call), **facts})

    def open(self, call: CTCCall, scores: Any) -> Case:
        """Hand a call that a user described to the guard."""
        return self._open(call, scores, self._arrived())

    def _arrived(self) -> Phase:
        self._guard.arriving()
        return "train" if torch.is_grad_enabled() else "eval"

    def _open(self, call: CTCCall, scores: Any, phase: Phase) -> Case:
        """Targets and lengths are judged now if they are on the host."""
        self._sites[phase] = call.call_site
        on_host = all(type(array) is np.ndarray for array in (call.targets, call.input_lengths, call.target_lengths))
        case = self._guard.open(self._with_origin(call, scores), phase, on_host or self._guard.settings.strict)
        if phase == "train" and isinstance(scores, torch.Tensor):
            self._gradients.called(scores, self._origin(scores, call.call_site))
        return case

    def measure(self, taken: Case | Passing, scores: Any, losses: torch.Tensor | None) -> Case | None:
        """Measure what has not been measured yet, and judge it now or when it arrives; None if the call may pass.

        With ``zero_infinity`` the losses may be as they were before infinities became 0.
        """
        if isinstance(taken, Case):
            case = taken
        elif losses is not None and losses.is_cpu and self._guard.let_pass(taken, losses.tolist()):
            return None
        else:
            call = replace(taken.make(), scores=scores.detach().transpose(0, 1), call_site=call_site(3))
            case = self._guard.reopen(taken, self._with_origin(call, scores))
        if losses is not None and case.call.zero_infinity:
            losses = losses.masked_fill(losses == inf, 0)
        call = case.call if losses is None else case.call.with_losses(host_view(losses.detach()).reshape(-1))
        depth, gradient = self._guard.depth(call), self._gradient(call, losses)
        probes = (*(() if case.ran else CONTRACT), *depth.probes, *([lambda _: gradient] if gradient else ()))
        if is_host(call.scores):
            self._guard.judge_readings(case, read(call, probes), evidence(call, depth.evidence))
            return case
        device_time = DeviceTime(call.scores.device)
        with device_time:
            packed, layout = measure(call, (*probes, *depth.evidence), beside=call.scores)
        case.call = call if self._guard.flight.holds(case) else call.without_arrays()

        def judge(values: HostArray) -> None:
            self._guard.clock.spend(device_time.seconds())
            self._guard.judge(case, values, layout)

        self._pending.add(packed, judge)
        return case

    def _gradient(self, call: CTCCall, losses: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Whether the gradient is right where something stands behind the softmax: at the first call of that line."""
        found = None
        if losses is not None and call.call_site not in self._altering and call.provenance.after_softmax():
            self._altering.add(call.call_site)
            with self._guard.contained("gradient of the logits"):
                found = wrong_gradient(losses, call.input_lengths)
        return {} if found is None else {"wrong_gradient_fraction": found}

    def _with_origin(self, call: CTCCall, scores: Any) -> CTCCall:
        if not isinstance(scores, torch.Tensor):
            return call
        return call.with_provenance(self._origin(scores, call.call_site).provenance)

    def _origin(self, scores: torch.Tensor, site: str) -> Origin:
        """Walked once for each call site, kind of graph, width and head."""
        node = scores.grad_fn
        key = (site, None if node is None else node.name(), scores.dtype, scores.shape[-1], scores.ndim)
        known = self._origins.get(key)
        if known is None or not same_head(scores, known):
            known = self._origins[key] = origin(scores)
        return known


def _ends_in_numbers(scores: torch.Tensor) -> bool:
    """Whether the last frame of a batch on the host holds no NaN: padding that does makes gradients NaN, not losses."""
    return not scores.is_cpu or not isnan(square_sum(scores, LAST_FRAMES))


def _on_host(values: Any) -> Any:
    """A numpy view of a tensor on the host; anything else as it is."""
    if not isinstance(values, torch.Tensor) or not values.is_cpu:
        return values
    return values.detach().numpy() if values.requires_grad else values.numpy()


def _detached(arguments: dict[str, Any]) -> dict[str, Any]:
    """Scores and losses outside of the graph, losses as a tensor; numpy views of labels and lengths on the host."""
    views = {name: _on_host(arguments[name]) for name in LABELS}
    if arguments.get("losses") is not None:
        views["losses"] = torch.as_tensor(arguments["losses"]).detach()
    floats = {name: arguments[name] for name in ("log_probs", "logits") if name in arguments}
    views |= {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in floats.items()}
    return arguments | views
