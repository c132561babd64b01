"""Train a small recogniser of character sequences; the loss gets what it expects."""

import argparse

import torch
from torch import nn

CLASSES = 29  # 28 characters and, last, the blank
options = argparse.ArgumentParser()
options.add_argument("--steps", type=int, default=5)
steps = options.parse_args().steps

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, CLASSES))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
criterion = nn.CTCLoss(blank=28)

for step in range(steps):
    features = torch.randn(8, 100, 40)  # batch, time, mel bands
    targets = torch.randint(0, 28, (8, 20))
    input_lengths = torch.randint(80, 101, (8,))
    input_lengths[0] = 100
    target_lengths = torch.randint(10, 21, (8,))

    log_probs = nn.functional.log_softmax(model(features), dim=-1)
    loss = criterion(log_probs.transpose(0, 1), targets, input_lengths, target_lengths)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item().hex()}", flush=True)
