"""What all cases share: a Trainer as users write it, its records read back, and the weights before and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctcguard.demo.recogniser import Collator, Example
from ctcguard.demo.screen import Screen

if TYPE_CHECKING:
    import torch
    from transformers import Trainer, Wav2Vec2BertForCTC, Wav2Vec2BertProcessor


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a case plays.

    Attributes
    ----------
    screen : Screen
        For what a person reads.
    directory : Path
        For the files of this case.
    quick : bool
        Whether it must be over in seconds.
    """

    screen: Screen
    directory: Path
    quick: bool


@dataclass(frozen=True, slots=True)
class Records:
    """What ``findings.jsonl`` says of a run: the findings, the verdicts and the end record."""

    findings: list[dict[str, Any]]
    verdicts: list[dict[str, Any]]
    end: dict[str, Any]

    @classmethod
    def of(cls, run_dir: Path) -> Records:
        """Read the file.

        Parameters
        ----------
        run_dir : Path
            The guard's.

        Returns
        -------
        Records
            In the order of the file.
        """
        lines = [json.loads(line) for line in (run_dir / "findings.jsonl").read_text(encoding="utf-8").splitlines()]
        findings, verdicts = ([line for line in lines if line["type"] == kind] for kind in ("finding", "verdict"))
        return cls(findings, verdicts, lines[-1])


def make_trainer(
    model: Wav2Vec2BertForCTC,
    processor: Wav2Vec2BertProcessor,
    data: Sequence[Example],
    output_dir: Path,
    *,
    steps: int,
    collator: Collator | None = None,
    **changes: Any,
) -> Trainer:
    """A Trainer on the CPU that keeps the screen free.

    Parameters
    ----------
    model, processor, data
        From `ctcguard.demo.recogniser`.
    output_dir : Path
        For the Trainer's files.
    steps : int
        Optimizer steps.
    collator : Collator, optional
        The plain one by default.
    **changes
        Fields of `TrainingArguments`.

    Returns
    -------
    Trainer
        Not guarded yet.
    """
    from transformers import PrinterCallback, Trainer, TrainingArguments

    fields: dict[str, Any] = {"max_steps": steps, "per_device_train_batch_size": 16, "learning_rate": 3e-3}
    fields |= {"warmup_steps": 25, "logging_steps": 1, "report_to": [], "save_strategy": "no", "use_cpu": True}
    fields |= {
        "disable_tqdm": True,
        "log_level": "error",
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }
    trainer = Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(output_dir), **{**fields, **changes}),
        train_dataset=list(data),
        data_collator=collator or Collator(processor),
        processing_class=processor,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


class Weights:
    """A copy of all parameters, to be compared with later.

    Parameters
    ----------
    model : torch.nn.Module
        As it is now.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._before = {name: value.detach().clone() for name, value in model.named_parameters()}

    @property
    def count(self) -> int:
        """Parameter tensors."""
        return len(self._before)

    def untouched(self) -> bool:
        """Whether every parameter is bit-equal to the copy."""
        import torch

        return all(torch.equal(self._before[name], value) for name, value in self._model.named_parameters())
