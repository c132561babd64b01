"""Labels padded with -1, of which the lengths are counted with != 0.

report: https://github.com/pytorch/pytorch/issues/89208
record: negative-lengths-or-labels
expects: CTC202 padding at step 0
"""

import numpy as np
import torch
from torch import nn

IGNORE_ID = -1
rng = np.random.RandomState(777)


def make_labels(texts):
    """1-based ids, one row a text."""
    width = max(len(text) for text in texts)
    rows = [[ord(char) - 96 for char in text] + [IGNORE_ID] * (width - len(text)) for text in texts]
    return torch.tensor(rows)


texts = ["hospital", "anchor", "river", "sun"]
net = nn.Sequential(nn.Linear(23, 50), nn.Tanh(), nn.Linear(50, 27))
crit = nn.CTCLoss(blank=0, reduction="sum", zero_infinity=True)
optim = torch.optim.Adam(net.parameters(), lr=1e-2)
for epoch in range(3):
    feats = torch.tensor(rng.randn(4, 32, 23), dtype=torch.float32)
    feats_lengths = torch.tensor([32, 28, 22, 16])
    target = make_labels(texts)
    target_lengths = (target != 0).sum(1)  # right: target_lengths = (target != IGNORE_ID).sum(1)
    ys_hat = net(feats).transpose(0, 1).log_softmax(2)
    loss = crit(ys_hat, target, feats_lengths, target_lengths) / ys_hat.size(1)
    optim.zero_grad()
    loss.backward()
    optim.step()
    print(epoch, loss.item())
