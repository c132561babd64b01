"""log(softmax(x)) instead of log_softmax(x): a confident model gets a probability of 0, and an infinite loss.

report: https://github.com/pytorch/pytorch/issues/14335
record: log-of-softmax-underflow
expects: CTC403 log-of-softmax at step 0
"""

import torch
from torch import nn

torch.manual_seed(3)


class Predictor(nn.Module):
    """A recogniser whose last layer was pretrained on other alphabets, and is very sure of itself."""

    def __init__(self, n_class):
        super().__init__()
        self.front = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.LayerNorm(64))
        self.top = nn.Linear(64, n_class)
        nn.init.normal_(self.top.weight, std=8.0)

    def forward(self, x):
        x = self.top(self.front(x))
        return torch.log(torch.softmax(x, dim=2))  # right: return torch.log_softmax(x, dim=2)


net = Predictor(30)
ctc_loss = nn.CTCLoss()
optimizer = torch.optim.Adadelta(net.parameters(), rho=0.9)
for i in range(3):
    x = torch.randn(30, 5, 20)
    y = torch.randint(1, 30, (5, 8), dtype=torch.int32)
    x_len = torch.full((5,), 30, dtype=torch.int32)
    y_len = torch.full((5,), 8, dtype=torch.int32)
    loss = ctc_loss(net(x), y, x_len, y_len)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(i, loss.item())
