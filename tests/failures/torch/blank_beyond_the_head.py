"""blank=len(vocab) as in other frameworks, with a head that has no unit for it.

report: https://github.com/PaddlePaddle/Paddle/issues/44489
record: paddle-blank-range
expects: CTC103 no-class-for-blank at step 0
raises: RuntimeError
"""

import torch
from torch import nn
from torch.nn import functional as F

vocab = list("0123456789.")
blank = len(vocab)

backbone = nn.Sequential(nn.Conv1d(16, 32, 3, padding=1), nn.ReLU())
head = nn.Linear(32, len(vocab))  # right: head = nn.Linear(32, len(vocab) + 1)
optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()])
for step in range(2):
    image_columns = torch.rand(4, 16, 40)
    prices = [f"{value:.2f}" for value in (torch.rand(4) * 100).tolist()]
    labels = torch.tensor([vocab.index(char) for price in prices for char in price])
    label_lengths = torch.tensor([len(price) for price in prices])
    logits = head(backbone(image_columns).transpose(1, 2))
    log_probs = F.log_softmax(logits.transpose(0, 1), -1)
    loss = F.ctc_loss(log_probs, labels, torch.full((4,), 40), label_lengths, blank=blank)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
