"""A tiny recogniser, batches that differ from rank to rank, and the ways in which ranks train together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

CLASSES, FRAMES, LABELS, BATCH = 12, 30, 5, 4
Fault = Callable[[int, int], bool]
"""Whether the batch of a rank at a step is a bad one."""
Prepared = tuple[Callable[[Tensor], Tensor], nn.Module, torch.optim.Optimizer, Callable[[Tensor], None]]


def never(rank: int, step: int) -> bool:
    return False


def recogniser() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, CLASSES))


def batches(rank: int, steps: int, fault: Fault = never) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Features (batch, time, 8), labels, and their lengths; in a bad batch, utterance 2 has 2 frames for 5 labels."""
    generator = torch.Generator().manual_seed(100 + rank)
    for step in range(steps):
        labels = torch.randint(1, CLASSES, (BATCH, LABELS), generator=generator)
        input_lengths = torch.randint(2 * LABELS, FRAMES + 1, (BATCH,), generator=generator)
        input_lengths[0] = FRAMES
        target_lengths = torch.randint(3, LABELS + 1, (BATCH,), generator=generator)
        if fault(rank, step):
            input_lengths[2], target_lengths[2] = 2, LABELS
        yield torch.randn(BATCH, FRAMES, 8, generator=generator), labels, input_lengths, target_lengths


def ddp() -> Prepared:
    model = nn.parallel.DistributedDataParallel(recogniser())
    return model, model, torch.optim.AdamW(model.parameters(), lr=1e-2), Tensor.backward


def fsdp2() -> Prepared:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = recogniser()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, model, torch.optim.AdamW(model.parameters(), lr=1e-2), Tensor.backward


def accelerate() -> Prepared:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    model = recogniser()
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    return model, model, optimizer, accelerator.backward


def train(
    engine: Callable[[], Prepared],
    steps: int,
    fault: Fault = never,
    uneven: bool = False,
    zero_infinity: bool = False,
) -> list[Any]:
    """Train from the start; the steps that were taken, and the weights of this rank.

    With ``uneven``, each rank has two batches fewer than the one before it, as DDP's ``join`` allows.
    """
    rank = dist.get_rank()
    run, model, optimizer, backward = engine()
    done = 0
    with ExitStack() as stack:
        if uneven:
            stack.enter_context(model.join())
        try:
            for features, labels, frames, lengths in batches(rank, steps - 2 * rank * uneven, fault):
                log_probs = run(features).log_softmax(-1).transpose(0, 1)
                optimizer.zero_grad()
                backward(nn.functional.ctc_loss(log_probs, labels, frames, lengths, zero_infinity=zero_infinity))
                optimizer.step()
                done += 1
        finally:
            TAKEN[:] = [done, *weights(model)]
    return list(TAKEN)


TAKEN: list[Any] = []
"""What the last training came to, also when it was stopped."""


def weights(model: nn.Module) -> list[list[float]]:
    """What this rank holds, as numbers."""
    return [local(parameter.detach()).flatten().tolist() for parameter in model.parameters()]


def local(tensor: Any) -> Tensor:
    found: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return found
