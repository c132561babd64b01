"""The warm-up divides whole numbers: the learning rate is 0 for a thousand steps, and the loss that of a guess.

report: https://github.com/PaddlePaddle/PaddleOCR/issues/3707
record: paddleocr-loss0
expects: CTC703 weights-at-rest at step 47
settings: {"thresholds": {"no-progress": {"grace_steps": 32, "calls": 32, "fall": 0.1}}}
"""

import torch
from torch import nn

torch.manual_seed(3707)
WARMUP, CLASSES = 1000, 12
patterns = torch.randn(CLASSES, 16)


def batch(n=12, labels=4, frames=16):
    y = torch.randint(1, CLASSES, (n, labels))
    x = patterns[y.repeat_interleave(frames // labels, dim=1)] + 0.2 * torch.randn(n, frames, 16)
    return x, y


def warmup(step):
    return (step + 1) // WARMUP  # right: return min(1.0, 100 * (step + 1) / WARMUP)


net = nn.Sequential(nn.Conv1d(16, 48, 3, padding=1), nn.ReLU(), nn.Conv1d(48, CLASSES, 1))
nn.init.normal_(net[-1].weight, std=0.01)
nn.init.zeros_(net[-1].bias)
optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup)
for step in range(100):
    x, y = batch()
    log_probs = net(x.transpose(1, 2)).permute(2, 0, 1).log_softmax(-1)
    loss = nn.functional.ctc_loss(log_probs, y, torch.full((12,), 16), torch.full((12,), 4))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step % 25 == 0:
        print(f"step: {step}, lr: {scheduler.get_last_lr()[0]:.6f}, loss: {loss.item():.6f}")
