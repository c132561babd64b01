"""At the milestone the learning rate is multiplied by 300 instead of 0.3: the loss jumps out of its range.

report: https://github.com/Sierkinhane/CRNN_Chinese_Characters_Rec/issues/59
record: lr-explosion
expects: CTC704 diverged at step 143
settings: {"thresholds": {"loss-spike": {"grace_steps": 50, "calls": 32, "tolerated_fraction": 0.5, "factor": 8, "recovery": 0.95}}}
"""  # noqa: E501 - JSON is one line

import torch
from torch import nn

torch.manual_seed(59)
CLASSES = 30
strokes = torch.randn(CLASSES, 24)
net = nn.Sequential(nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, CLASSES))
optimizer = torch.optim.RMSprop(net.parameters(), lr=0.003)
gamma = 300  # right: gamma = 0.3
scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[100], gamma=gamma)
for step in range(200):
    y = torch.randint(1, CLASSES, (16, 5))
    x = strokes[y.repeat_interleave(4, dim=1)] + 0.3 * torch.randn(16, 20, 24)
    log_probs = net(x).transpose(0, 1).log_softmax(-1)
    loss = nn.functional.ctc_loss(log_probs, y, torch.full((16,), 20), torch.full((16,), 5))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step % 10 == 0:
        print(f"[{step}/130] lr {scheduler.get_last_lr()[0]:g} loss {loss.item():.4f}")
