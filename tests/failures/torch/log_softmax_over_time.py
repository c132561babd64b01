"""log_softmax over time instead of the classes: the loss is positive and falls, and nothing is learned.

report: https://github.com/fxia22/pointnet.pytorch/issues/27
record: softmax-wrong-axis
expects: CTC402 wrong-axis at step 0
"""

import torch
import torch.nn.functional as F
from torch import nn


def synth(batch, frames=48, phones=5):
    """Phones as tones: each holds for a few frames."""
    target = torch.randint(1, 20, (batch, phones))
    stretched = target.repeat_interleave(frames // phones, dim=1)
    stretched = F.pad(stretched, (0, frames - stretched.shape[1]))
    tones = torch.sin(stretched[..., None] * torch.linspace(0.1, 3, 26))
    return (tones + 0.1 * torch.randn_like(tones)).transpose(0, 1), target


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(26, 40, bidirectional=True)
        self.out = nn.Linear(80, 20)
        self.activation = nn.LogSoftmax(dim=0)  # right: self.activation = nn.LogSoftmax(dim=-1)

    def forward(self, x):
        return self.activation(self.out(self.lstm(x)[0]))


net = Tiny()
opt = torch.optim.Adam(net.parameters(), lr=5e-3)
criterion = nn.CTCLoss()
for it in range(6):
    x, y = synth(8)
    out = net(x)
    T, N, _ = out.shape
    loss = criterion(out, y, torch.full((N,), T), torch.full((N,), y.shape[1]))
    opt.zero_grad()
    loss.backward()
    opt.step()
    print(it, round(loss.item(), 3))
