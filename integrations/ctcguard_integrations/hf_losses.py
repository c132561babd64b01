"""What the Trainer takes for the loss of a micro-batch, and what it logs, held against the CTC calls in between."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import Trainer

from ctcguard.case import Case
from ctcguard.guard import Guard
from ctcguard_integrations.torch_loop import Watch

LOOKED_STEPS = 3
"""Accumulated steps looked at; what holds for them holds for all, and a loss on a device has to be waited for."""


class MicroBatch(NamedTuple):
    """What the Trainer was given for a micro-batch, and the only CTC call in it, a mean."""

    loss: torch.Tensor
    case: Case


class TrainerLosses:
    """While it is open, looks at every micro-batch of one Trainer and at its log.

    Parameters
    ----------
    trainer : Trainer
        Its own ``training_step`` and ``log`` are called as they are; what they return is not changed.
    watching : callable
        The guard of the training, once there is one.
    """

    def __init__(self, trainer: Trainer, watching: Callable[[], Watch | None]) -> None:
        self._trainer = trainer
        self._watching = watching
        self._own = {name: vars(trainer).get(name) for name in ("training_step", "log")}
        self._step: list[MicroBatch | None] = []
        self._waiting: list[MicroBatch] = []
        self._looked = 0
        self._micro_batches = self._hidden = self._hidden_step = 0

    def __enter__(self) -> TrainerLosses:
        self._replace("training_step", self._training_step)
        self._replace("log", self._log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name, own in self._own.items():
            if own is None:
                delattr(self._trainer, name)
            else:
                setattr(self._trainer, name, own)

    def _replace(self, name: str, around: Callable[..., Any]) -> None:
        original = getattr(self._trainer, name)
        setattr(self._trainer, name, functools.wraps(original)(functools.partial(around, original)))

    def _training_step(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        watch = self._watching()
        if watch is None:
            return original(*args, **kwargs)
        before = watch.guard.micro_step
        loss = original(*args, **kwargs)
        with watch.guard.contained("Trainer.training_step"):
            self._keep_count(loss)
            self._accumulate(loss, watch.guard, before)
            self._compare(watch)
        return loss

    def _log(self, original: Callable[..., Any], logs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        result = original(logs, *args, **kwargs)
        watch = self._watching()
        if watch is not None and "loss" in logs and self._micro_batches:
            with watch.guard.contained("Trainer.log"):
                self._hold_against(logs["loss"], watch)
        return result

    def _keep_count(self, loss: torch.Tensor) -> None:
        """Of losses that the log will not show: the Trainer waits for each of them, too, where it filters."""
        if not self._trainer.args.logging_nan_inf_filter or loss.device.type == "xla":
            return
        self._micro_batches += 1
        if not bool(torch.isfinite(loss).all()):
            self._hidden_step = self._hidden_step if self._hidden else self._trainer.state.global_step
            self._hidden += 1

    def _hold_against(self, logged: float, watch: Watch) -> None:
        found = {
            "logged_loss": logged,
            "hidden_losses": self._hidden,
            "hidden_of": self._micro_batches,
            "hidden_step": self._hidden_step,
        }
        self._micro_batches = self._hidden = 0
        watch.guard.check_step(found, "Trainer.log")

    def _accumulate(self, loss: torch.Tensor, guard: Guard, before: int) -> None:
        """Gather the micro-batches of a step; only whole steps of single means can be compared."""
        steps = getattr(self._trainer, "current_gradient_accumulation_steps", 1)
        if steps < 2 or self._looked >= LOOKED_STEPS:
            self._step = []
            return
        cases = guard.step_cases[before:]
        one = len(cases) == 1 and cases[0].call.reduction == "mean"
        self._step.append(MicroBatch(loss, cases[0]) if one else None)
        if len(self._step) >= steps:
            self._looked += 1
            whole = [each for each in self._step if each is not None]
            self._waiting = whole if len(whole) == steps else []
            self._step = []

    def _compare(self, watch: Watch) -> None:
        """Once the losses of the calls are known: at once, or on a device one step later."""
        if not self._waiting or not all("losses" in each.case.readings for each in self._waiting):
            return
        found = {
            "accumulation_steps": len(self._waiting),
            "trainer_losses": torch.stack([each.loss for each in self._waiting]).double().cpu().numpy(),
            "ctc_losses": np.asarray([_mean(each.case) for each in self._waiting]),
        }
        self._waiting = []
        watch.guard.check_step(found, "Trainer.training_step")


def _mean(case: Case) -> float:
    """The loss of a call with ``reduction="mean"``, from those of its utterances."""
    losses, labels = case.readings.column("losses"), case.readings.column("target_lengths")
    return float(np.mean(losses / np.maximum(labels, 1)))
