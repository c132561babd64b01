"""Train a small recogniser; a reshape stands where a transpose should, so every utterance is made of all of them."""

import torch
from torch import nn

CLASSES = 29  # 28 characters and, last, the blank


class Recogniser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(40, 32, bidirectional=True)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        batch, time, bands = features.shape
        hidden, _ = self.rnn(features.reshape(time, batch, bands))
        return self.head(hidden).log_softmax(-1)


torch.manual_seed(0)
model = Recogniser()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
criterion = nn.CTCLoss(blank=28)

for step in range(3):
    features = torch.randn(8, 100, 40)  # batch, time, mel bands
    targets = torch.randint(0, 28, (8, 20))
    input_lengths = torch.randint(80, 101, (8,))
    input_lengths[0] = 100
    target_lengths = torch.randint(10, 21, (8,))

    loss = criterion(model(features), targets, input_lengths, target_lengths)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: loss {loss.item().hex()}", flush=True)
