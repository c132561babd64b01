"""(batch, time) becomes (time, batch) by reshape: frames of all utterances are mixed, and every number looks right.

report: https://runebook.dev/en/docs/pytorch/generated/torch.nn.functional.ctc_loss
record: batch-time-layout
expects: CTC801 reshape-instead-of-transpose at step 0
settings: {"probe_model": true}
"""

import torch
import torch.nn as nn


class Net(nn.Module):
    def __init__(self, vocab_size=33):
        super().__init__()
        self.encoder = nn.LSTM(input_size=40, hidden_size=32, batch_first=True, bidirectional=True)
        self.classifier = nn.Linear(64, vocab_size)

    def forward(self, inputs):
        hidden, _ = self.encoder(inputs)
        batch_size, num_frames, _ = hidden.shape
        logits = self.classifier(hidden)
        logits = logits.reshape(num_frames, batch_size, -1)  # right: logits = logits.transpose(0, 1)
        return nn.functional.log_softmax(logits, dim=-1)


torch.manual_seed(0)
net = Net()
criterion = nn.CTCLoss(zero_infinity=True)
optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
for step in range(5):
    target_lengths = torch.randint(4, 9, (4,))
    targets = torch.randint(1, 33, (4, 8))
    inputs = torch.randn(4, 48, 40)
    log_probs = net(inputs)
    input_lengths = torch.full((4,), log_probs.size(0))
    loss = criterion(log_probs, targets, input_lengths, target_lengths)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step} loss {loss.item():.4f}")
