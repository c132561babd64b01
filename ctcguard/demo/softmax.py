"""The forum mistake: probabilities where ``torch.nn.CTCLoss`` wants log-probabilities, in a plain PyTorch loop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ctcguard.demo.broken import Caught, Expected, conclude
from ctcguard.demo.recogniser import Collator, examples, make_processor
from ctcguard.demo.speech import spoken_digits
from ctcguard.demo.training import Records, Stage, Weights

if TYPE_CHECKING:
    import torch

TITLE = "softmax: probabilities are passed where log-probabilities belong"
EXPECTED = Expected("CTC402", "probabilities", also=("CTC401", "CTC501"))


def make_small_model(classes: int) -> torch.nn.Sequential:
    """A small model of plain PyTorch: features (batch, frames, 160) to scores (batch, frames, classes).

    Parameters
    ----------
    classes : int
        Width of the head, blank included.

    Returns
    -------
    torch.nn.Sequential
        Freshly initialised.
    """
    from torch import nn

    body = nn.TransformerEncoderLayer(96, nhead=4, dim_feedforward=192, batch_first=True)
    return nn.Sequential(nn.Linear(160, 96), body, nn.Linear(96, classes))


def train_wrongly(model: torch.nn.Module, batches: Iterable[dict[str, torch.Tensor]], blank: int) -> None:
    """A loop like many; the mistake is in the first line of its body.

    Parameters
    ----------
    model : torch.nn.Module
        To be trained.
    batches : iterable of dict
        From `Collator`.
    blank : int
        Index of the blank class.
    """
    import torch
    from torch.nn import functional

    loss_function = torch.nn.CTCLoss(blank=blank)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for batch in batches:
        outputs = functional.softmax(model(batch["input_features"]), dim=-1)
        frames, labels = batch["attention_mask"].sum(-1), (batch["labels"] >= 0).sum(-1)
        loss = loss_function(outputs.transpose(0, 1), batch["labels"], frames, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def run(stage: Stage) -> bool:
    """Train under ``watch()`` until it is stopped.

    Parameters
    ----------
    stage : Stage
        Where it plays.

    Returns
    -------
    bool
        Whether it was stopped at step 0 with the right verdict and untouched weights.
    """
    from torch.utils.data import DataLoader
    from transformers import set_seed

    from ctcguard import watch

    set_seed(0)
    processor = make_processor()
    data: Any = examples(spoken_digits(32, seed=3), processor)
    batches: DataLoader[Any] = DataLoader(data, batch_size=8, collate_fn=Collator(processor))
    model = make_small_model(classes=len(processor.tokenizer))
    stage.screen.row("mistake", "F.softmax(x) goes to torch.nn.CTCLoss, which wants F.log_softmax(x)")
    stage.screen.row("without", "the loss is negative from the first batch on, and the model does not learn to spell")
    stage.screen.row("guard", "with watch(): around a plain PyTorch loop")
    weights = Weights(model)
    with Caught() as caught, watch(run_dir=stage.directory):
        train_wrongly(model, batches, processor.tokenizer.pad_token_id)
    problems = (
        "" if caught.stopped else "the training was not stopped",
        "" if weights.untouched() else "weights changed",
    )
    good = f"stopped before the first optimizer step; all {weights.count} weight tensors are untouched"
    return conclude(stage.screen, Records.of(stage.directory), EXPECTED, problems, good)
