"""Lengths are those of the file names with '.jpg', targets without: lengths and buffer disagree.

report: https://github.com/Holmeyoung/crnn-pytorch/issues/62
record: target-length-exceeds-buffer
expects: CTC303 beyond-buffer at step 0
raises: RuntimeError
"""

import os

import torch
from torch import nn

CHARS = "0123456789"
FILES = ["00123847.jpg", "5501.jpg", "912.jpg", "70881236.jpg"]


def read_labels(files):
    names = [os.path.splitext(file)[0] for file in files]
    length = torch.tensor([len(file) for file in files])  # right: length = torch.tensor([len(name) for name in names])
    text = torch.zeros(len(files), max(map(len, names)), dtype=torch.long)
    for row, name in zip(text, names):
        row[: len(name)] = torch.tensor([CHARS.index(char) + 1 for char in name])
    return text, length


class Recognizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 24, (32, 5), padding=(0, 2))
        self.lstm = nn.LSTM(24, 24, bidirectional=True)
        self.fc = nn.Linear(48, len(CHARS) + 1)

    def forward(self, x):
        x = torch.relu(self.conv(x)).squeeze(2).permute(2, 0, 1)
        return self.fc(self.lstm(x)[0])


net = Recognizer()
criterion = nn.CTCLoss(zero_infinity=True)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
for i in range(2):
    text, length = read_labels(FILES)
    preds = net(torch.randn(len(FILES), 1, 32, 40)).log_softmax(2)
    preds_size = torch.full((len(FILES),), preds.size(0))
    cost = criterion(preds, text, preds_size, length) / len(FILES)
    optimizer.zero_grad()
    cost.backward()
    optimizer.step()
    print(f"[{i}] Loss: {cost.item():.5f}")
