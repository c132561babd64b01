"""On request: once in a run, before its weights move, the model of the first CTC call is run on changed batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ctcguard._array import to_numpy
from ctcguard.case import Case
from ctcguard.guard import Guard
from ctcguard_integrations.torch_model_calls import Calls, ModuleCall
from ctcguard_integrations.torch_model_exam import Examination
from ctcguard_integrations.torch_model_graph import Swap, graph_of
from ctcguard_integrations.torch_model_inputs import Inputs, UnsuitableError
from ctcguard_integrations.torch_model_passes import Passes
from ctcguard_integrations.torch_model_state import aside

SHARDED = ("to_local", "ds_id", "FullyShardedDataParallel")
"""Signs of weights that other processes hold parts of (DTensor, ZeRO, FSDP): they would have to run it together."""


@dataclass(frozen=True, slots=True)
class Target:
    """The first training call, the module calls that made its scores, and a reshape that mixes utterances, if any."""

    case: Case
    calls: list[ModuleCall]
    swap: Swap | None


class ModelProbe:
    """Waits for the first training call, and examines its model when an optimizer is about to step.

    At that moment the backward pass is over: nothing of it can be disturbed, and its memory is free again.

    Parameters
    ----------
    guard : Guard
        Says whether it is wanted, and judges what is found.
    """

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._calls = Calls(guard.contained) if guard.settings.probe_model else None
        self._target: Target | None = None

    def close(self) -> None:
        """Torch as it was before. What was not examined by now never is."""
        self._target = None
        if self._calls is not None:
            self._calls.close()
            self._calls = None

    def called(self, case: Case, scores: Any) -> None:
        """A loss was called: with the first one in training it is known which module calls made its scores."""
        if self._calls is None:
            return
        if case.where.phase != "train" or not isinstance(scores, torch.Tensor):
            self._calls.finished.clear()
            return
        graph = graph_of(scores, case.readings["batch"])
        parts = [call for call in self._calls.finished if call.made & graph.nodes]
        parts += [] if self._calls.active is None else [self._calls.active]
        self.close()
        if parts:
            self._target = Target(case, parts, graph.swap)
        else:
            self._guard.end_fields["probe_model"] = "not run: no module was called that made the scores of the loss"

    def examine(self) -> None:
        """Before an optimizer steps: run the passes, once, and judge them.

        Raises
        ------
        CTCVerdictError
            At a finding whose reaction is ``raise``.
        """
        target, self._target = self._target, None
        if target is None:
            return
        said: list[str] = []
        for call in target.calls:
            text, readings = _examined(target.case, call, target.swap)
            said.append(text)
            self._guard.end_fields["probe_model"] = " | ".join(said)
            if readings:
                self._guard.check_case(target.case, readings, f"{text.split()[0]}.forward")


def _examined(case: Case, call: ModuleCall, swap: Swap | None) -> tuple[str, dict[str, Any]]:
    """What the passes through one part of the model gave: a line for the user, and readings."""
    model = call.module()
    if model is None:
        return "not run: the model is gone", {}
    model = getattr(model, "_orig_mod", model)  # as it was before torch.compile
    name, weights = type(model).__name__, list(model.parameters())
    batch, frames, classes, blank = (case.readings[fact] for fact in ("batch", "frames", "classes", "blank"))
    valid = to_numpy(case.call.input_lengths)
    try:
        kinds = {type(module).__name__ for module in model.modules()}
        if any(sign in kinds or hasattr(weight, sign) for weight in weights for sign in SHARDED):
            raise UnsuitableError("its weights are spread over several processes")
        inputs = Inputs(call.given, batch, frames, valid)
        with aside(model) as kept:
            passes = Passes(model, inputs, kept, batch, frames, classes)
            exam = Examination(passes, inputs, frames, valid, blank)
            exam.run()
    except UnsuitableError as reason:
        return f"{name} not run: {reason}", {}
    group_norm = getattr(getattr(model, "config", None), "feat_extract_norm", "") == "group"
    facts = {"meant_for_padding": group_norm and not inputs.told, **({} if swap is None else {"reshape": swap})}
    ran = f"{name} ran {passes.count} times ({sum(weight.numel() for weight in weights)} weights)"
    return "; ".join([ran, *exam.left_out]), {**exam.readings, **facts}
