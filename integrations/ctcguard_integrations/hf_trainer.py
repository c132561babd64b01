"""Hugging Face: a callback that guards one `Trainer.train`, and checks tokenizer, config and head before it begins."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from ctcguard.guard import Guard
from ctcguard.settings import load
from ctcguard.vocabulary import Vocabulary
from ctcguard_integrations import hf_resume
from ctcguard_integrations.hf_losses import TrainerLosses
from ctcguard_integrations.hf_texts import texts_of
from ctcguard_integrations.late_wandb import outer_sinks
from ctcguard_integrations.torch_loop import Watch

HEADS = ("lm_head", "ctc_head", "ctc_lo", "ctc_proj")
_shared: Watch | None = None


class CTCGuard(TrainerCallback, ExportableState):
    """Guard a Trainer: ``trainer.add_callback(CTCGuard())`` or ``callbacks=[CTCGuard]``.

    Before training begins, the tokenizer (or processor), the config and the head are held against each other. During
    training every CTC call is judged, evaluation too, and verdicts are awaited before the optimizer steps. The guard is
    gone when ``train()`` returns or raises.

    Parameters
    ----------
    guard : Watch, optional
        A guard at work, to be joined instead of opening one.
    **settings
        The fields of `ctcguard.Settings`. ``vocabulary`` is the trainer's ``processing_class`` unless given;
        ``run_dir`` is ``<output_dir>/ctcguard``. ``on_error="stop"`` ends training through the Trainer's own control,
        with the gradients of the bad step thrown away.

    Raises
    ------
    SettingsError
        For a setting that does not exist.
    CTCVerdictError
        Out of ``train()``, before the weights are touched.

    Examples
    --------
    >>> from ctcguard import CTCGuard
    >>> CTCGuard(on_error="alert").state()["args"]
    {'on_error': 'alert'}
    """

    def __init__(self, guard: Watch | None = None, **settings: Any) -> None:
        global _shared
        load(**settings)
        self._settings = settings
        self._watch: Watch | None = None
        self._dataset: Any = None
        if guard is not None:
            _shared = guard

    @property
    def watch(self) -> Watch | None:
        """The guard of the current or last training, with ``findings``, ``verdicts`` and ``run_dir``."""
        return self._watch

    def state(self) -> dict[str, Any]:
        """Settings for the checkpoint; live objects such as a tokenizer are found again when training begins."""
        plain = (str, int, float, bool, list, tuple, dict, type(None))
        kept = {name: str(value) if isinstance(value, Path) else value for name, value in self._settings.items()}
        return {"args": {name: value for name, value in kept.items() if isinstance(value, plain)}, "attributes": {}}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Open the guard and judge what is known before the first step."""
        watch = self._begin(Path(args.output_dir), kwargs.get("processing_class"))
        guard = watch.guard
        with guard.contained("meeting other ranks"):
            watch.ranks.meet()
        with guard.contained("resume"):
            hf_resume.load(watch, args)
        guard.reporter.stop_by_raising = False
        guard.at_step(state.global_step)
        texts: tuple[str, ...] = ()
        dataset, self._dataset = self._dataset, None
        with guard.contained("texts of the data set"):
            texts = texts_of(dataset)
        with guard.contained("train begin"):
            values = head_of(model) | {"texts": texts}
            if values and (guard.vocabulary is not None or "config_vocab_size" in values):
                guard.check_setup(values, f"{type(model).__name__}")
        if guard.reporter.stop is not None:
            control.should_training_stop = True

    def beginning(self, trainer: Trainer) -> None:
        """``Trainer.train`` was called; its callbacks are not told of the trainer itself."""
        self._dataset = trainer.train_dataset

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take over the Trainer's count of steps."""
        if self._watch is not None:
            self._watch.guard.at_step(state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> Any:
        """Wait for the verdict; to stop, throw the gradients away, so that the optimizer changes nothing."""
        if self._watch is None:
            return
        with self._watch.guard.contained("pre-optimizer step"):
            self._watch.await_verdict()
        self._stop(control, optimizer)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A stop that only the gradients could tell ends training here."""
        self._stop(control, None)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what the guard remembers with the checkpoint."""
        if self._watch is not None:
            with self._watch.guard.contained("checkpoint"):
                hf_resume.save(self._watch, args, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Training ended as it should."""
        self.finish()

    def finish(self) -> None:
        """Close the guard of this training, unless it was only joined. Twice is harmless."""
        if self._watch is not None and self._watch is not _shared:
            self._watch.close()

    def _begin(self, output_dir: Path, processing_class: Any) -> Watch:
        self.finish()
        found, fault = _vocabulary(processing_class)
        if not self._settings and _shared is not None and _shared.is_open:
            self._watch = _shared
            self._watch.guard.vocabulary = self._watch.guard.vocabulary or found
            return self._watch
        settings = load(**{"vocabulary": found, **self._settings})
        guard = Guard(settings, outer_sinks(settings), default_dir=output_dir / "ctcguard")
        self._watch = Watch(guard, self._settings)
        if fault is not None:
            guard.reporter.fault("processing_class", "capture", fault)
        return self._watch

    def _stop(self, control: Any, optimizer: Any) -> None:
        if self._watch is None or self._watch.guard.reporter.stop is None:
            return
        control.should_training_stop = True
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)


def _vocabulary(processing_class: Any) -> tuple[Vocabulary | None, Exception | None]:
    """What it says of the classes; nothing, and why, where it cannot say it."""
    try:
        return None if processing_class is None else Vocabulary.found_in(processing_class), None
    except Exception as error:  # noqa: BLE001 - any tokenizer, with any backend: it must not end a training
        return None, error


def head_of(model: Any) -> dict[str, Any]:
    """What a CTC model of transformers says of its head: ``classes``, ``blank``, ``config_vocab_size`` where known.

    Parameters
    ----------
    model : torch.nn.Module
        Wrappers (DistributedDataParallel, PEFT) are looked through. Empty for a model whose config has no CTC fields.
    """
    model = getattr(model, "module", model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "ctc_loss_reduction"):
        return {}
    layer = next((getattr(model, name) for name in HEADS if hasattr(model, name)), None)
    width = getattr(layer, "out_features", None) or getattr(layer, "out_channels", None)
    found = {"classes": width, "blank": getattr(config, "pad_token_id", None), "config_vocab_size": config.vocab_size}
    return {name: value for name, value in found.items() if isinstance(value, int)}


def _guards(trainer: Trainer) -> list[CTCGuard]:
    """Its callbacks that guard; a resume may have made them anew since training began."""
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, CTCGuard)]


def _watching(trainer: Trainer) -> Watch | None:
    """The guard at work of one of its callbacks."""
    found = (callback.watch for callback in _guards(trainer))
    return next((watch for watch in found if watch is not None and watch.is_open), None)


def _closes_guards(train: Any) -> Any:
    """``Trainer.train`` tells callbacks of its end, but not of its failure: close the guards in both cases."""

    @functools.wraps(train)
    def guarded_train(self: Any, *args: Any, **kwargs: Any) -> Any:
        for callback in _guards(self):
            callback.beginning(self)
        try:
            with TrainerLosses(self, functools.partial(_watching, self)), hf_resume.resuming(self, args, kwargs):
                return train(self, *args, **kwargs)
        finally:
            for callback in _guards(self):
                callback.finish()

    return guarded_train


Trainer.train = _closes_guards(Trainer.train)  # type: ignore[method-assign]
