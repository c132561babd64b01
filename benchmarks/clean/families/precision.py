"""Every precision of the softmax by every reduction of the losses."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.clean.corpus import Family, Losses
from benchmarks.clean.task import Speech
from tests.clean.lab import Batch, Lab, Tensor

family = Family("precision")
STEPS = 60

LogProbs = Callable[[Lab, Tensor], Tensor]
Reduce = Callable[[Lab, Tensor, Batch], Tensor]


def autocast(half: torch.dtype) -> LogProbs:
    """The model under autocast; the loss wants float32."""

    def log_probs(lab: Lab, features: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=half):
            return lab.log_probs(features).float()

    return log_probs


def in_the_dtype_of_the_model(lab: Lab, features: Tensor) -> Tensor:
    found = lab.log_probs(features.to(lab.head.weight.dtype))
    return found if found.dtype == torch.float64 else found.float()


PRECISIONS: dict[str, tuple[torch.dtype, LogProbs]] = {
    "float32": (torch.float32, in_the_dtype_of_the_model),
    "float64": (torch.float64, in_the_dtype_of_the_model),
    "bfloat16 log_softmax": (torch.float32, lambda lab, x: lab.logits(x).bfloat16().log_softmax(-1).float()),
    "float16 log_softmax": (torch.float32, lambda lab, x: lab.logits(x).half().log_softmax(-1).float()),
    "bfloat16 autocast": (torch.float32, autocast(torch.bfloat16)),
    "float16 autocast": (torch.float32, autocast(torch.float16)),
    "bfloat16 model": (torch.bfloat16, in_the_dtype_of_the_model),
}
REDUCTIONS: dict[str, Reduce] = {
    "mean": lambda lab, scores, batch: lab.ctc(scores, batch),
    "sum": lambda lab, scores, batch: lab.ctc(scores, batch, reduction="sum"),
    "none": lambda lab, scores, batch: lab.ctc(scores, batch, reduction="none").mean(),
    "own mean over time": lambda lab, scores, batch: (
        lab.ctc(scores, batch, reduction="none") / batch.input_lengths
    ).mean(),
}


def training(dtype: torch.dtype, log_probs: LogProbs, reduce: Reduce) -> Callable[[int], Losses]:
    def train(seed: int) -> Losses:
        lab = Speech(seed)
        lab.model.to(dtype)
        for batch in lab.batches(STEPS):
            loss = reduce(lab, log_probs(lab, batch.features), batch)
            lab.update(loss)
            yield loss.item()

    return train


for precision, (dtype, log_probs) in PRECISIONS.items():
    for reduction, reduce in REDUCTIONS.items():
        family.add(f"{precision}, {reduction}", training(dtype, log_probs, reduce), seeds=2)
