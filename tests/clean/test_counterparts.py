"""Real mistakes that look much like the healthy trainings beside them: silence there must not cost these."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from ctcguard import watch
from tests.clean.lab import Batch, Lab

Mistake = Callable[[], None]


def zeroed(zero: Callable[[Lab], None], apart: bool = False, attention: bool = False, steps: int = 8) -> Mistake:
    """Something throws the gradients away between the backward pass and the step."""

    def train() -> None:
        lab = Lab(0)
        decoder = torch.nn.Linear(16, 12)
        lab.optimizer.add_param_group({"params": list(decoder.parameters())})
        optimizers = [lab.optimizer]
        if apart:
            optimizers = [torch.optim.Adam(lab.encoder.parameters()), torch.optim.Adam(lab.head.parameters())]
        for batch in lab.batches(steps):
            loss = lab.loss(batch)
            if attention:
                loss = 0.3 * loss + decoder(lab.encoder(batch.features)).square().mean()
            loss.backward()
            zero(lab)
            decoder.zero_grad()
            for optimizer in optimizers:
                optimizer.step()

    return train


def of_optimizer(lab: Lab) -> None:
    lab.optimizer.zero_grad()


def with_zeros(lab: Lab) -> None:
    lab.optimizer.zero_grad(set_to_none=False)


def of_model(lab: Lab) -> None:
    lab.model.zero_grad()


def zeroed_in_a_second_phase() -> None:
    lab = Lab(0)
    for batch in lab.batches(8):
        lab.update(lab.loss(batch))
    lab.optimizer = torch.optim.SGD(lab.model.parameters(), lr=0.1)
    for batch in lab.batches(8):
        lab.loss(batch).backward()
        lab.optimizer.zero_grad()
        lab.optimizer.step()


def head_replaced_after_the_optimizer_was_made() -> None:
    lab = Lab(0)
    for step, batch in enumerate(lab.batches(16)):
        if step == 4:
            lab.head = torch.nn.Linear(16, 12)
        lab.update(lab.loss(batch))


def other_optimizer_forgotten() -> None:
    """Made, but never called."""
    lab = Lab(0)
    first, _second = torch.optim.Adam(lab.encoder.parameters()), torch.optim.Adam(lab.head.parameters())
    for batch in lab.batches(110, size=1, frames=8, labels=2):
        first.zero_grad()
        lab.loss(batch).backward()
        first.step()


def first_model_in_the_optimizer_second_in_the_loss() -> None:
    optimized, trained = Lab(0), Lab(1)
    trained.optimizer = optimized.optimizer
    for batch in trained.batches(8):
        optimized.optimizer.zero_grad()
        (trained.loss(batch) + optimized.head.weight.sum()).backward()
        optimized.optimizer.step()


def detached_while_another_loss_trains() -> None:
    lab = Lab(0)
    for batch in lab.batches(8):
        hidden = lab.encoder(batch.features)
        lab.update(lab.ctc(lab.head(hidden).detach().log_softmax(-1), batch) + hidden.square().mean())


def lengths(of: Callable[[int], int], labels: int = 1) -> Mistake:
    """Lengths that grow with the frames, in another unit."""

    def train() -> None:
        lab = Lab(0)
        for frames in torch.randint(50, 400, (24,), generator=torch.Generator().manual_seed(0)).tolist():
            batch = lab.batch(frames=frames, labels=labels)
            lab.update(lab.loss(dataclasses.replace(batch, input_lengths=torch.full((4,), of(frames)))))

    return train


def normalised_by(normalise: Callable[[torch.Tensor], torch.Tensor]) -> Mistake:
    def train() -> None:
        lab = Lab(0)
        for batch in lab.batches(3):
            lab.update(lab.ctc(normalise(lab.logits(batch.features)), batch))

    return train


def labels_of(change: Callable[[torch.Tensor], torch.Tensor]) -> Mistake:
    """Wrong labels under a bfloat16 softmax, whose losses may be a little below 0."""

    def train() -> None:
        lab = Lab(0)
        for batch in lab.batches(3):
            log_probs = lab.logits(batch.features).bfloat16().log_softmax(-1).float()
            wrong = Batch(batch.features, change(batch.targets), batch.input_lengths, batch.target_lengths)
            lab.update(lab.ctc(log_probs, wrong))

    return train


def a_second_head_that_is_too_narrow() -> None:
    lab = Lab(0)
    narrow = torch.nn.Linear(16, 6)
    lab.optimizer.add_param_group({"params": list(narrow.parameters())})
    for batch in lab.batches(6):
        hidden = lab.encoder(batch.features)
        lab.update(lab.ctc(lab.head(hidden).log_softmax(-1), batch) + lab.ctc(narrow(hidden).log_softmax(-1), batch))


MISTAKES: dict[str, tuple[Mistake, str, str]] = {
    "gradients thrown away": (zeroed(of_optimizer), "CTC603", "zeroed-before-step"),
    "gradients set to zero": (zeroed(with_zeros), "CTC603", "zeroed-before-step"),
    "gradients of the model thrown away": (zeroed(of_model), "CTC603", "zeroed-before-step"),
    "gradients of two optimizers thrown away": (zeroed(of_model, apart=True), "CTC603", "zeroed-before-step"),
    "gradients of a hybrid thrown away": (zeroed(of_model, attention=True), "CTC603", "zeroed-before-step"),
    "gradients thrown away in a second phase": (zeroed_in_a_second_phase, "CTC603", "zeroed-before-step"),
    "new head, old optimizer": (head_replaced_after_the_optimizer_was_made, "CTC603", "not-in-optimizer"),
    "the optimizer of the head is never called": (other_optimizer_forgotten, "CTC603", "not-in-optimizer"),
    "another model in the optimizer": (first_model_in_the_optimizer_second_in_the_loss, "CTC603", "not-in-optimizer"),
    "detached": (detached_while_another_loss_trains, "CTC603", "detached"),
    "lengths halved": (lengths(lambda frames: frames // 2), "CTC304", "subsampled-twice"),
    "lengths quartered": (lengths(lambda frames: (frames + 3) // 4), "CTC304", "subsampled-twice"),
    "whole seconds": (lengths(lambda frames: frames // 50), "CTC304", "seconds"),
    "softmax in bfloat16": (normalised_by(lambda x: x.bfloat16().softmax(-1).float()), "CTC402", "probabilities"),
    "temperature after a softmax in bfloat16": (
        normalised_by(lambda x: x.bfloat16().log_softmax(-1).float() / 0.8), "CTC402", "altered-after-softmax",
    ),
    "log(softmax + 0.01)": (normalised_by(lambda x: (x.softmax(-1) + 1e-2).log()), "CTC402", "altered-after-softmax"),
    "label smoothing after the softmax": (
        normalised_by(lambda x: 0.9 * x.log_softmax(-1) - 0.01), "CTC402", "altered-after-softmax",
    ),
    "blank among the labels": (labels_of(lambda labels: labels.clamp(max=2) - 1), "CTC203", "blank-index"),
    "label beyond the head": (labels_of(lambda labels: labels + 8), "CTC201", "label-beyond-head"),
    "label beyond a second head": (a_second_head_that_is_too_narrow, "CTC201", "label-beyond-head"),
}  # fmt: skip


@pytest.mark.parametrize("title", MISTAKES)
def test_is_still_found(title: str) -> None:
    train, code, cause = MISTAKES[title]
    with watch(on_error="stop", on_warning="stop") as guard:
        train()
    assert [(verdict.code, verdict.cause) for verdict in guard.verdicts][:1] == [(code, cause)]
