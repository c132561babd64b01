"""A distance to the pretrained weights, by sqrt, has no gradient where it is 0: every step overflows and is skipped.

report: https://github.com/facebookresearch/fairseq/issues/1529
record: half-precision-nan
expects: CTC604 gradient-overflow at step 0
"""

import copy

import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(1529)
model = nn.Sequential(nn.Linear(40, 48), nn.GELU(), nn.Linear(48, 32))
pretrained = copy.deepcopy(model).requires_grad_(False)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
scaler = torch.amp.GradScaler("cpu", init_scale=128.0)


def distance():
    pairs = zip(model.parameters(), pretrained.parameters())
    square = sum((new - old).square().sum() for new, old in pairs)
    return square.sqrt()  # right: return (square + 1e-8).sqrt()


for update in range(24):
    target, lengths = torch.randint(1, 32, (4, 7)), torch.full((4,), 40)
    with torch.autocast("cpu", dtype=torch.float16):
        logits = model(torch.randn(40, 4, 40))
    lprobs = logits.float().log_softmax(-1)
    loss = F.ctc_loss(lprobs, target, lengths, torch.full((4,), 7), reduction="sum") + 0.01 * distance()
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    print(f"| epoch 001: {update} | loss={loss.item():.4g}, loss_scale={scaler.get_scale():g}")
