"""Data comes from a worker process that is spawned, and so reads this file again."""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Sentences(Dataset):
    """Random features and labels, made here so that the worker must find this class."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        return torch.randn(50, 12, generator=generator), torch.randint(1, 6, (9,), generator=generator)


if __name__ == "__main__":
    torch.manual_seed(0)
    model = nn.Linear(12, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(Sentences(), batch_size=4, num_workers=1, multiprocessing_context="spawn")
    for features, targets in loader:
        log_probs = model(features).log_softmax(-1).transpose(0, 1)
        loss = nn.functional.ctc_loss(log_probs, targets, [50] * len(targets), [9] * len(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(loss.item().hex())
    sys.exit(6)
