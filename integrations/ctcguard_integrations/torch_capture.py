"""From torch's terms to the guard's: a loss call becomes a CTCCall, is measured, and is handed to the guard."""

from __future__ import annotations

from typing import Any

import torch

from ctcguard._array import HostArray, host_view, is_host
from ctcguard.call import CTCCall, ctc_call
from ctcguard.callsite import call_site
from ctcguard.case import Case
from ctcguard.guard import Guard
from ctcguard.probes import CONTRACT, evidence, measure, read
from ctcguard_integrations.hf_labels import given_labels
from ctcguard_integrations.torch_gradients import Gradients
from ctcguard_integrations.torch_pending import DeviceTime, Pending
from ctcguard_integrations.torch_posterior import wrong_gradient
from ctcguard_integrations.torch_provenance import Origin, origin, same_head

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

    def torch_call(self, arguments: dict[str, Any]) -> CTCCall:
        """The arguments of ``torch.ctc_loss`` in the normal form.

        Raises
        ------
        CallError
            For shapes that torch refuses too.
        """
        site = call_site(4)
        options = {
            name: arguments[name] for name in ("log_probs", "targets", "input_lengths", "target_lengths", "blank")
        }
        return ctc_call(
            **_detached(options),
            batch_first=False,
            reduction=REDUCTIONS[arguments["reduction"]],
            zero_infinity=bool(arguments["zero_infinity"]),
            framework="torch",
            source="torch.ctc_loss",
            call_site=site,
            provenance=self._origin(arguments["log_probs"], site).provenance,
            given_labels=host_view(given_labels()),
        )

    def observed_call(self, call: dict[str, Any]) -> CTCCall:
        """What the user said of a loss of their own, in the normal form."""
        scores: Any = call.get("log_probs", call.get("logits"))
        site = call_site(3)
        made = self._origin(scores, site).provenance if isinstance(scores, torch.Tensor) else None
        facts = {"framework": "torch", "source": "guard.observe", "call_site": site}
        return ctc_call(**{**_detached(call), **facts, **({"provenance": made} if made else {})})

    def open(self, call: CTCCall, scores: Any) -> Case:
        """Hand a call to the guard; its targets and lengths are judged now if they are on the host."""
        train = torch.is_grad_enabled()
        contract = (call.targets, call.input_lengths, call.target_lengths)
        early = self._guard.settings.strict or all(map(is_host, contract))
        case = self._guard.open(call, "train" if train else "eval", early)
        if train and isinstance(scores, torch.Tensor):
            self._gradients.called(scores, self._origin(scores, call.call_site))
        return case

    def measure(self, case: Case, losses: torch.Tensor | None) -> None:
        """Measure what has not been measured yet, and judge it now or when it arrives."""
        call = case.call if losses is None else case.call.with_losses(host_view(losses.detach()).reshape(-1))
        depth, gradient = self._guard.depth(call), self._gradient(call, losses)
        probes = (*(() if case.ran else CONTRACT), *depth.probes, *([lambda _: gradient] if gradient else ()))
        if is_host(call.scores):
            self._guard.judge_readings(case, read(call, probes), evidence(call, depth.evidence))
            return
        device_time = DeviceTime(call.scores.device)
        with device_time:
            packed, layout = measure(call, (*probes, *depth.evidence), beside=call.scores)
        case.call = call if self._guard.flight.holds(case) else call.without_arrays()

        def judge(values: HostArray) -> None:
            self._guard.clock.spend(device_time.seconds())
            self._guard.judge(case, values, layout)

        self._pending.add(packed, judge)

    def _gradient(self, call: CTCCall, losses: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Whether the gradient is right where something stands behind the softmax: at the first call of that line."""
        found = None
        if losses is not None and call.call_site not in self._altering and call.provenance.after_softmax():
            self._altering.add(call.call_site)
            with self._guard.contained("gradient of the logits"):
                found = wrong_gradient(losses, call.input_lengths)
        return {} if found is None else {"wrong_gradient_fraction": found}

    def _origin(self, scores: torch.Tensor, site: str) -> Origin:
        """Walked once for each call site, kind of graph, width and head."""
        node = scores.grad_fn
        key = (site, None if node is None else node.name(), scores.dtype, scores.shape[-1], scores.ndim)
        known = self._origins.get(key)
        if known is None or not same_head(scores, known):
            known = self._origins[key] = origin(scores)
        return known


def _detached(arguments: dict[str, Any]) -> dict[str, Any]:
    """Scores and losses outside of the graph; numpy views of targets and lengths that are on the host."""
    views = {name: host_view(arguments[name]) for name in ("targets", "input_lengths", "target_lengths")}
    floats = {name: arguments[name] for name in ("log_probs", "logits", "losses") if name in arguments}
    views |= {name: value.detach() if isinstance(value, torch.Tensor) else value for name, value in floats.items()}
    return arguments | views
