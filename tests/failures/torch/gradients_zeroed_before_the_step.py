"""zero_grad() stands between backward() and step(): the loss does not decrease.

report: https://github.com/SeanNaren/warp-ctc/issues/63
record: warpctc-blank-only-63
expects: CTC603 zeroed-before-step at step 3
"""

import numpy as np
import torch
from torch import nn

labels = "_'ABCDEFGHIJKLMNOPQRSTUVWXYZ "
rng = np.random.default_rng(63)


class SimpleRNN(nn.Module):
    def __init__(self, input_size, hidden, classes):
        super().__init__()
        self.rnn = nn.RNN(input_size, hidden, num_layers=2)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x):
        h, _ = self.rnn(x)
        return nn.functional.log_softmax(self.out(h), dim=2)


def batch(n=4):
    text = ["".join(rng.choice(list(labels[1:]), rng.integers(4, 10))) for _ in range(n)]
    sizes = torch.tensor([len(t) for t in text])
    acts = torch.tensor(rng.normal(size=(40, n, 161)), dtype=torch.float32)
    return acts, torch.tensor([labels.index(c) for t in text for c in t]), torch.full((n,), 40), sizes


model = SimpleRNN(161, 40, len(labels))
ctc_loss = nn.CTCLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
for epoch in range(6):
    acts, targets, acts_sizes, target_sizes = batch()
    cost = ctc_loss(model(acts), targets, acts_sizes, target_sizes)
    model.zero_grad()
    cost.backward()
    optimizer.zero_grad()  # right:
    optimizer.step()
    print("Epoch:", epoch, "Loss:", round(cost.item(), 3))
