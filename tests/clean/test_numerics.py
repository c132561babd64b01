"""Log-probs that are right although unusual: every precision, normalisation, certainty, shape and size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch

from tests.clean.lab import Batch, Lab, Table, Tensor, Weights

healthy = Table()
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize(("title", "seed"), healthy.rows)
def test_stays_silent(title: str, seed: int) -> None:
    healthy.check(title, seed)


def train(lab: Lab, log_probs: Callable[[Tensor], Tensor], steps: int = 10, **shape: int) -> Weights:
    """Train with another road from features to log-probs."""
    for batch in lab.batches(steps, **shape):
        lab.update(lab.ctc(log_probs(batch.features), batch))
    return lab.weights()


# ------------------------------------------------------------------------------------------------------- normalisations


def log_of_softmax(eps: float) -> Callable[[Tensor], Tensor]:
    return lambda x: (x.softmax(-1) + eps).log()


NORMALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "log_softmax": lambda x: x.log_softmax(-1),
    "over the last axis by a positive number": lambda x: x.log_softmax(2),
    "twice": lambda x: x.log_softmax(-1).log_softmax(-1),
    "in float64": lambda x: x.double().log_softmax(-1),
    "in float64, cast back": lambda x: x.double().log_softmax(-1).float(),
    "by hand": lambda x: x - x.logsumexp(-1, keepdim=True),
    "by hand, large logits": lambda x: (1e3 * x) - (1e3 * x).logsumexp(-1, keepdim=True),
    "logits in bfloat16, log_softmax in float32": lambda x: x.bfloat16().log_softmax(-1, dtype=torch.float32),
    "softmax in bfloat16, log in float32": lambda x: x.bfloat16().softmax(-1).float().log(),
    "log of softmax in float32": lambda x: x.softmax(-1).log(),
    "temperature on the logits": lambda x: (x / 0.3).log_softmax(-1),
    "bias of the blank on the logits": lambda x: (x + 5 * (torch.arange(12) == 0)).log_softmax(-1),
    "unused classes at -1e4": lambda x: x.masked_fill(torch.arange(12) > 10, -1e4).log_softmax(-1),
    "clamped logits": lambda x: x.clamp(-5, 5).log_softmax(-1),
    "dropout on the logits": lambda x: torch.nn.functional.dropout(x, 0.2).log_softmax(-1),
    "classes first": lambda x: x.permute(1, 2, 0).log_softmax(1).permute(2, 0, 1),
    "batch first": lambda x: x.transpose(0, 1).log_softmax(-1).transpose(0, 1),
    "batch and time in one axis": lambda x: x.reshape(-1, 12).log_softmax(-1).reshape(x.shape),
    "not contiguous": lambda x: torch.stack([x.log_softmax(-1), x.log_softmax(-1)], dim=-1)[..., 0],
    "channels last": lambda x: x.log_softmax(-1)[None].to(memory_format=torch.channels_last)[0],
    "mixture of two": lambda x: torch.logaddexp(x.log_softmax(-1), (0.5 * x).log_softmax(-1)) - math.log(2),
    "smoothed towards uniform, still a distribution": lambda x: (0.99 * x.softmax(-1) + 0.01 / 12).log(),
    "saturated logits": lambda x: (300 * x).log_softmax(-1),
    "nearly uniform": lambda x: (1e-6 * x).log_softmax(-1),
}  # fmt: skip
for name, half in HALVES.items():
    NORMALISATIONS[f"log_softmax in {name}"] = lambda x, half=half: x.to(half).log_softmax(-1).float()
    NORMALISATIONS[f"log_softmax in {name}, saturated"] = lambda x, half=half: (
        (100 * x).to(half).log_softmax(-1).float()
    )
    NORMALISATIONS[f"log_softmax in {name}, batch first"] = lambda x, half=half: (
        x.transpose(0, 1).to(half).log_softmax(-1).float().transpose(0, 1)
    )


def with_normalisation(normalise: Callable[[Tensor], Tensor]) -> Callable[[int], Weights]:
    def case(seed: int) -> Weights:
        lab = Lab(seed)
        return train(lab, lambda features: normalise(lab.logits(features)))

    return case


for title, normalise in NORMALISATIONS.items():
    healthy(title, seeds=2)(with_normalisation(normalise))
for eps in (1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 8e-4):
    hint = ("CTC402",) if eps > 5e-5 else ()
    healthy(f"log(softmax + {eps:g})", seeds=2, information=hint)(with_normalisation(log_of_softmax(eps)))


# ------------------------------------------------------------------------------------------------ models and precisions


def of_model(half: torch.dtype) -> Callable[[int], Weights]:
    def case(seed: int) -> Weights:
        lab = Lab(seed)
        lab.model.to(half)
        lab.optimizer = torch.optim.SGD(lab.model.parameters(), lr=1e-2)
        return train(lab, lambda features: lab.log_probs(features.to(half)).float())

    return case


def of_evaluation(half: torch.dtype, cast: torch.dtype) -> Callable[[int], Weights]:
    def case(seed: int) -> Weights:
        lab = Lab(seed, classes=40)
        lab.model.to(half)
        losses = []
        for batch in lab.batches(10):
            with torch.no_grad():
                losses.append(lab.ctc(lab.log_probs(batch.features.to(half)).to(cast), batch, reduction="none"))
        return losses

    return case


for name, half in HALVES.items():
    healthy(f"model in {name}", seeds=2)(of_model(half))
    for cast in (torch.float32, torch.float64):
        healthy(f"evaluation in {name}, loss in {cast}", seeds=2)(of_evaluation(half, cast))


@healthy(seeds=2)
def autocast_in_bfloat16(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(15):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = lab.loss(batch)
        lab.update(loss)
    return lab.weights()


@healthy(seeds=2)
def autocast_with_the_loss_outside(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(15):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            log_probs = lab.log_probs(batch.features).transpose(0, 1)
        lab.update(lab.ctc(log_probs.transpose(0, 1).float(), batch))
    return lab.weights()


@healthy(seeds=2)
def autocast_switched_on_in_the_middle(seed: int) -> Weights:
    """The graph ends the same way in both halves, while the softmax runs in another dtype."""
    lab = Lab(seed, classes=60)
    for step, batch in enumerate(lab.batches(16)):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step >= 8):
            log_probs = lab.log_probs(batch.features)
        lab.update(lab.ctc(log_probs.float().transpose(0, 1).transpose(0, 1), batch))
    return lab.weights()


@healthy(seeds=2)
def everything_in_float64(seed: int) -> Weights:
    lab = Lab(seed)
    lab.model.double()
    return train(lab, lambda features: lab.log_probs(features.double()))


# ------------------------------------------------------------------------------------------------------------ certainty


def tiny(lab: Lab, frames: int = 20, labels: int = 5, size: int = 2) -> Batch:
    """A batch that a model can learn by heart."""
    targets = lab.labels(size, labels)
    return Batch(
        torch.randn(frames, size, 8, generator=lab.generator),
        targets,
        torch.full((size,), frames),
        torch.full((size,), labels),
    )


def by_heart(seed: int, normalise: Callable[[Tensor], Tensor], steps: int = 140, below: float = 0.1) -> Weights:
    lab = Lab(seed, hidden=64, lr=6e-2)
    batch = tiny(lab)
    for _ in range(steps):
        loss = lab.ctc(normalise(lab.logits(batch.features)), batch, reduction="sum")
        lab.update(loss)
    assert float(loss.detach()) < below
    return lab.weights()


CERTAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "float32": lambda x: x.log_softmax(-1),
    "float64": lambda x: x.double().log_softmax(-1),
    "bfloat16": lambda x: x.bfloat16().log_softmax(-1).float(),
    "float16": lambda x: x.half().log_softmax(-1).float(),
    "1e-7": log_of_softmax(1e-7),
    "1e-4": log_of_softmax(1e-4),
    "sharpened": lambda x: (20 * x).log_softmax(-1),
}
for name, normalise in CERTAIN.items():
    hint = ("CTC402",) if name == "1e-4" else ()
    healthy(f"learned by heart, {name}", seeds=2 if "float" in name else 1, information=hint)(
        lambda seed, normalise=normalise: by_heart(seed, normalise)
    )


def on_one_path(normalise: Callable[[Tensor], Tensor], below: float = 0.0) -> Callable[[int], Weights]:
    """Free logits that put everything on one alignment, long enough for a guard over its budget to measure less."""

    def case(seed: int) -> Weights:
        path = torch.arange(60) % 4
        logits = 30 * torch.nn.functional.one_hot(path, 12).float()[:, None, :]
        logits += torch.randn(logits.shape, generator=torch.Generator().manual_seed(seed))
        logits.requires_grad_(True)
        optimizer = torch.optim.SGD([logits], lr=0.1)
        for _ in range(50):
            optimizer.zero_grad()
            loss = torch.nn.functional.ctc_loss(
                normalise(logits), path[path > 0][None, :], (60,), (45,), reduction="sum"
            )
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) < below
        return [logits.detach().clone()]

    return case


for eps in (1e-5, 1e-4, 8e-4):
    healthy(f"certain, log(softmax + {eps:g})", seeds=2, information=("CTC402",))(on_one_path(log_of_softmax(eps)))
healthy("certain, float32", seeds=2)(on_one_path(lambda x: x.log_softmax(-1), below=1e-3))


@healthy(seeds=2)
def until_the_loss_and_its_gradient_are_exactly_zero(seed: int) -> Weights:
    """One alignment only (as many frames as labels), free logits, an impatient optimizer."""
    lab = Lab(seed)
    frames = 6
    targets = torch.arange(1, frames + 1)[None, :].repeat(2, 1)
    logits = torch.nn.Parameter(torch.randn(frames, 2, lab.classes, generator=lab.generator))
    optimizer = torch.optim.SGD([logits], lr=1e5)
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.nn.functional.ctc_loss(logits.log_softmax(-1), targets, (frames,) * 2, (frames,) * 2)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not bool(logits.grad.any())
    return [logits.detach()]


@healthy(seeds=2)
def a_head_until_its_gradient_is_exactly_zero(seed: int) -> Weights:
    lab = Lab(seed)
    frames = 6
    features = 3 * torch.eye(8)[:frames, None, :].repeat(1, 2, 1)
    targets = torch.arange(1, frames + 1)[None, :].repeat(2, 1)
    batch = Batch(features, targets, (frames,) * 2, (frames,) * 2)
    lab.optimizer = torch.optim.SGD(lab.head.parameters(), lr=1e5)
    for _ in range(80):
        loss = lab.loss(batch)
        lab.update(loss)
    assert lab.head.weight.grad is not None
    assert not bool(lab.head.weight.grad.any())
    return lab.weights()


@healthy(seeds=3)
def free_parameters_as_log_probs(seed: int) -> Weights:
    """A subclass of Tensor goes into the loss: normalised, and projected back after each step."""
    lab = Lab(seed)
    free = torch.nn.Parameter(torch.randn(20, 2, lab.classes, generator=lab.generator).log_softmax(-1))
    optimizer = torch.optim.SGD([free], lr=0.5)
    batch = tiny(lab)
    for _ in range(20):
        optimizer.zero_grad()
        lab.ctc(free, batch).backward()
        optimizer.step()
        with torch.no_grad():
            free.copy_(free.log_softmax(-1))
    return [free.detach().clone()]


class Wave(torch.Tensor):
    """A user's own kind of tensor."""


def subclassed(frames: int, classes: int) -> Callable[[int], Weights]:
    def case(seed: int) -> Weights:
        lab = Lab(seed, classes=classes)
        return train(lab, lambda x: lab.log_probs(x).as_subclass(Wave), steps=6, frames=frames)

    return case


healthy("a subclass of Tensor", seeds=2)(subclassed(30, 12))
healthy("a large subclass of Tensor")(subclassed(300, 300))


@healthy(seeds=3)
def certain_utterance_beside_an_undecided_one_in_bfloat16(seed: int) -> Weights:
    """The boundary between two labels may lie on either of two frames: both ways are right, and each is rounded."""
    lab = Lab(seed, classes=400)
    logits = torch.full((60, 2, 400), -200.0)
    logits[:, 1] = torch.randn(60, 400, generator=lab.generator)
    for frame in range(60):
        label, phase = 1 + (frame // 4) % 15, frame % 4
        logits[frame, 0, label if phase in (0, 1) else 0] = 0.0
        if phase in (1, 3):
            logits[frame, 0, 0 if phase == 1 else label % 15 + 1 if frame < 59 else 0] = 0.0
    logits.requires_grad_(True)
    targets = torch.arange(1, 16)[None, :].repeat(2, 1)
    optimizer = torch.optim.SGD([logits], lr=0.0)
    for _ in range(12):
        optimizer.zero_grad()
        losses = torch.nn.functional.ctc_loss(
            logits.bfloat16().log_softmax(-1).float(), targets, (60, 60), (15, 15), reduction="none"
        )
        assert float(losses[0].detach()) < 0.1
        losses.sum().backward()
        optimizer.step()
    return [logits.detach().clone()]


# ----------------------------------------------------------------------------------------------------- shapes and sizes


SHAPES: dict[str, tuple[int, dict[str, int], int]] = {
    "two classes": (2, {}, 15),
    "three classes": (3, {}, 15),
    "5000 classes": (5000, {"size": 2}, 5),
    "5000 classes, one utterance of one label": (5000, {"size": 1, "labels": 1}, 5),
    "one utterance": (12, {"size": 1}, 15),
    "many utterances": (12, {"size": 64}, 8),
    "3000 frames": (12, {"frames": 3000, "size": 1, "labels": 40}, 3),
    "3000 frames of 100 classes": (100, {"frames": 3000, "size": 2, "labels": 200}, 3),
    "one label": (12, {"labels": 1}, 15),
    "labels everywhere": (12, {"frames": 60, "labels": 25}, 15),
}
for title, (classes, shape, steps) in SHAPES.items():

    def of_shape(seed: int, classes: int = classes, shape: dict[str, int] = shape, steps: int = steps) -> Weights:
        lab = Lab(seed, classes=classes)
        return train(lab, lab.log_probs, steps=steps, **shape)

    healthy(title)(of_shape)


@healthy()
def long_and_certain_in_float32(seed: int) -> Weights:
    """3000 frames, all but certain: the loss is 0 but for rounding."""
    lab = Lab(seed)
    frames, labels = 3000, 400
    targets = lab.labels(1, labels)
    path = torch.zeros(frames, dtype=torch.long)
    path[torch.arange(labels) * 7 + 3] = targets[0]
    logits = 25 * torch.nn.functional.one_hot(path, lab.classes).float()[:, None, :]
    logits += torch.randn(logits.shape, generator=lab.generator)
    logits.requires_grad_(True)
    optimizer = torch.optim.SGD([logits], lr=1.0)
    for _ in range(4):
        optimizer.zero_grad()
        loss = torch.nn.functional.ctc_loss(logits.log_softmax(-1), targets, (frames,), (labels,), reduction="sum")
        loss.backward()
        optimizer.step()
    assert abs(float(loss.detach())) < 0.01
    return [logits.detach().clone()]


@healthy(seeds=2)
def label_smoothing_as_a_term_of_its_own(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(15):
        log_probs = lab.log_probs(batch.features)
        smoothing = -(log_probs.mean(-1) + math.log(lab.classes)).mean()
        lab.update(lab.ctc(log_probs, batch) + 0.1 * smoothing)
    return lab.weights()


@healthy(seeds=2)
def log_probs_expanded_from_one_utterance(seed: int) -> Weights:
    lab = Lab(seed)
    for batch in lab.batches(15):
        one = lab.log_probs(batch.features[:, :1]).expand(-1, 4, -1)
        lab.update(lab.ctc(one, batch))
    return lab.weights()


@healthy(seeds=2)
def all_blank_output(seed: int) -> Weights:
    """The usual first phase: whatever is said, the model says nothing."""
    lab = Lab(seed, lr=1e-4)
    with torch.no_grad():
        lab.head.bias[0] = 30.0
    return train(lab, lab.log_probs, steps=20)


@healthy(seeds=2)
def classes_never_used(seed: int) -> Weights:
    lab = Lab(seed, classes=64)
    for batch in lab.batches(15):
        few = dataclasses.replace(batch, targets=batch.targets.clamp(max=9))
        lab.update(lab.loss(few))
    return lab.weights()
