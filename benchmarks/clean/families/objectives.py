"""CTC beside other losses, on one head or several, in one model or several: totals that say nothing about CTC."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch.nn import functional

from benchmarks.clean.corpus import Family, Losses
from benchmarks.clean.task import Speech
from tests.clean.lab import Batch, Tensor

family = Family("objectives")
STEPS = 60
HIDDEN = 32
Term = Callable[[Speech, Batch, Tensor], Tensor]


def beside(term: Term, share: float = 0.5) -> Callable[[int], Losses]:
    """CTC and a term of log-probs (time, batch, classes); what is shown is the total."""

    def train(seed: int) -> Losses:
        lab = Speech(seed)
        for batch in lab.batches(STEPS):
            log_probs = lab.log_probs(batch.features)
            loss = (1 - share) * lab.ctc(log_probs, batch) + share * term(lab, batch, log_probs)
            lab.update(loss)
            yield loss.item()

    return train


def entropy(lab: Speech, batch: Batch, log_probs: Tensor) -> Tensor:
    """Peaky outputs cost: the total is negative as soon as CTC is small."""
    return 10 * (log_probs.exp() * log_probs).sum(-1).mean()


def risk(lab: Speech, batch: Batch, log_probs: Tensor) -> Tensor:
    """Minimum risk over sampled paths: errors less their mean, as likely negative as not."""
    paths = torch.distributions.Categorical(logits=log_probs.detach().repeat(4, 1, 1, 1)).sample()
    errors = (paths != lab.blank).sum(1).float() - batch.target_lengths.sum() / 4
    scores = log_probs.expand(4, -1, -1, -1).gather(-1, paths[..., None])[..., 0].sum(1)
    return (scores.softmax(0) * (errors - errors.mean(0))).sum(0).mean()


def transducer(lab: Speech, batch: Batch, log_probs: Tensor) -> Tensor:
    """4-D scores (batch, time, labels + 1, classes), log_softmax over them twice: a joint network that is no CTC."""
    joint = log_probs.transpose(0, 1)[:, :, None] + torch.zeros(1, 1, batch.targets.shape[1] + 1, 1)
    return -joint.log_softmax(-1).log_softmax(-1)[..., lab.blank].mean()


def smoothing(lab: Speech, batch: Batch, log_probs: Tensor) -> Tensor:
    return -log_probs.mean()


TERMS: dict[str, tuple[Term, float]] = {
    "entropy, the total is negative": (entropy, 0.5),
    "minimum risk": (risk, 0.3),
    "a transducer's 4-D scores": (transducer, 0.2),
    "label smoothing as its own term": (smoothing, 0.1),
    "CTC of weight 0": (smoothing, 1.0),
}
for name, (term, share) in TERMS.items():
    family.add(name, beside(term, share))


@family("CTC and attention", seeds=4)
def attention(seed: int) -> Losses:
    """A decoder with cross-entropy; the weight of CTC goes from 1 to 0.2."""
    lab = Speech(seed)
    embedding, decoder = torch.nn.Embedding(12, HIDDEN), torch.nn.Linear(HIDDEN, 12)
    lab.optimizer.add_param_group({"params": [*embedding.parameters(), *decoder.parameters()]})
    for step, batch in enumerate(lab.batches(STEPS)):
        hidden = lab.encoder(batch.features)
        inputs = functional.pad(batch.targets, (1, 0))[:, :-1]
        heard = embedding(inputs) @ hidden.permute(1, 2, 0)
        said = decoder(heard.softmax(-1) @ hidden.transpose(0, 1))
        cross = functional.cross_entropy(said.transpose(1, 2), batch.targets)
        share = max(0.2, 1 - step / 50)
        loss = share * lab.ctc(lab.head(hidden).log_softmax(-1), batch) + (1 - share) * cross
        lab.update(loss)
        yield loss.item()


@family("intermediate CTC, self-conditioned", seeds=4)
def intermediate(seed: int) -> Losses:
    """One head on three layers, fed back into the next: three CTC calls a step."""
    lab = Speech(seed)
    layers = torch.nn.ModuleList(torch.nn.Linear(HIDDEN, HIDDEN) for _ in range(2))
    back = torch.nn.Linear(12, HIDDEN)
    lab.optimizer.add_param_group({"params": [*layers.parameters(), *back.parameters()]})
    for batch in lab.batches(STEPS):
        hidden = lab.encoder(batch.features)
        losses = []
        for layer in layers:
            scores = lab.head(hidden)
            losses.append(lab.ctc(scores.log_softmax(-1), batch))
            hidden = layer(hidden + back(scores.softmax(-1))).tanh()
        loss = 0.6 * lab.ctc(lab.head(hidden).log_softmax(-1), batch) + 0.2 * torch.stack(losses).sum()
        lab.update(loss)
        yield loss.item()


@family("consistency of two views")
def consistency(seed: int) -> Losses:
    """CR-CTC: two masked views of each utterance in one batch."""
    lab = Speech(seed)
    for batch in lab.batches(STEPS):
        views = functional.dropout(batch.features.repeat(1, 2, 1), 0.15)
        log_probs = lab.log_probs(views)
        twice = Batch(views, batch.targets.repeat(2, 1), batch.input_lengths.repeat(2), batch.target_lengths.repeat(2))
        one, two = log_probs.chunk(2, dim=1)
        agree = functional.kl_div(one, two.detach(), log_target=True, reduction="batchmean")
        loss = lab.ctc(log_probs, twice) + 0.01 * agree
        lab.update(loss)
        yield loss.item()


@family("a student and its teacher, both with CTC")
def distillation(seed: int) -> Losses:
    """The teacher is frozen and never learned anything; its CTC loss is only looked at."""
    lab, teacher = Speech(seed), Speech(seed + 1000)
    teacher.model.requires_grad_(False)
    for batch in lab.batches(STEPS):
        with torch.no_grad():
            wanted = teacher.log_probs(batch.features)
            teacher.ctc(wanted, batch)
        log_probs = lab.log_probs(batch.features)
        loss = lab.ctc(log_probs, batch) + 0.01 * functional.kl_div(
            log_probs, wanted, log_target=True, reduction="batchmean"
        )
        lab.update(loss)
        yield loss.item()


PHONES = ["<blank>", *"aeiou"]


def of_few(batch: Batch, classes: int) -> Batch:
    """The same utterances in fewer symbols."""
    return dataclasses.replace(batch, targets=1 + batch.targets % (classes - 1))


def two_tasks(together: bool) -> Callable[[int], Losses]:
    """Letters and phones, a head each; the vocabulary of the guard is that of the letters."""

    def train(seed: int) -> Losses:
        lab = Speech(seed)
        other = torch.nn.Linear(HIDDEN, len(PHONES))
        lab.optimizer.add_param_group({"params": list(other.parameters())})
        for step, batch in enumerate(lab.batches(STEPS)):
            hidden = lab.encoder(batch.features)
            losses = []
            if together or step % 2 == 0:
                losses.append(lab.ctc(lab.head(hidden).log_softmax(-1), batch))
            if together or step % 2 == 1:
                losses.append(lab.ctc(other(hidden).log_softmax(-1), of_few(batch, len(PHONES))))
            loss = torch.stack(losses).mean()
            lab.update(loss)
            yield loss.item()

    return train


LETTERS = ["<blank>", *"abcdefghijk"]
family.add("two tasks in turns, a vocabulary for one", two_tasks(together=False), vocabulary=LETTERS)
family.add("two tasks at once, a vocabulary for one", two_tasks(together=True), vocabulary=LETTERS)


@family("two tasks with different blanks", seeds=2)
def two_blanks(seed: int) -> Losses:
    """One corpus after the other, each with its own head; the blank is first here and last there."""
    lab, other = Speech(seed), Speech(seed, blank=11)
    optimizer = torch.optim.AdamW([*lab.model.parameters(), *other.head.parameters()], lr=1e-2)
    for step in range(STEPS):
        task = (lab, other)[step // 10 % 2]
        batch = task.batch()
        optimizer.zero_grad()
        loss = task.ctc(task.head(lab.encoder(batch.features)).log_softmax(-1), batch)
        loss.backward()
        optimizer.step()
        yield loss.item()


def adapted(frozen: str) -> Callable[[int], Losses]:
    """Parts that do not learn: an encoder; an encoder for the first steps; all but a small adapter and the head."""

    def train(seed: int) -> Losses:
        lab = Speech(seed)
        lab.encoder.requires_grad_(False)
        adapter = torch.nn.Sequential(torch.nn.Linear(HIDDEN, 4), torch.nn.GELU(), torch.nn.Linear(4, HIDDEN))
        torch.nn.init.zeros_(adapter[2].weight)
        parts = [lab.head, adapter] if frozen == "adapter" else [lab.head, lab.encoder]
        lab.optimizer = torch.optim.AdamW([p for part in parts for p in part.parameters()], lr=1e-2)
        for step, batch in enumerate(lab.batches(STEPS)):
            if frozen == "at first" and step == 20:
                lab.encoder.requires_grad_(True)
            hidden = lab.encoder(batch.features)
            hidden = hidden + adapter(hidden) if frozen == "adapter" else hidden
            loss = lab.ctc(lab.head(hidden).log_softmax(-1), batch)
            lab.update(loss)
            yield loss.item()

    return train


family.add("frozen encoder", adapted("all"))
family.add("encoder frozen at first", adapted("at first"))
family.add("an adapter in a frozen encoder", adapted("adapter"))


def evaluating(grad: bool, every: int) -> Callable[[int], Losses]:
    """Evaluation on other data in between, with another reduction; its loss is far above the training loss."""

    def train(seed: int) -> Losses:
        lab, held_out = Speech(seed), Speech(seed + 500)
        lab.encoder.append(torch.nn.Dropout(0.1))
        for step, batch in enumerate(lab.batches(STEPS)):
            lab.model.train()
            loss = lab.loss(batch)
            lab.update(loss)
            yield loss.item()
            if step % every == 0:
                lab.model.eval()
                with torch.set_grad_enabled(grad):
                    for other in held_out.batches(3, size=7):
                        lab.ctc(lab.log_probs(other.features), other, reduction="sum")

    return train


family.add("evaluation under no_grad", evaluating(grad=False, every=10))
family.add("evaluation with gradients", evaluating(grad=True, every=3))
