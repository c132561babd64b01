"""Lengths of the features, although the encoder subsamples by 4.

report: https://github.com/thu-spmi/CAT/issues/22
record: lengths-not-subsampled
expects: CTC304 not-subsampled at step 0
raises: RuntimeError
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence


class BLSTM(nn.Module):
    """VGG-like: two poolings by two, then recurrence."""

    def __init__(self, idim, hdim, n_classes):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(idim, hdim, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2), nn.MaxPool1d(2))
        self.rnn = nn.LSTM(hdim, hdim, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(hdim * 2, n_classes)

    def forward(self, logits, input_lengths):
        x = self.conv(logits.transpose(1, 2)).transpose(1, 2)
        lens = input_lengths  # right: lens = input_lengths // 4
        return self.linear(self.rnn(x)[0]), lens


def sort_and_pad(batch):
    batches = sorted(batch, key=lambda item: item[0].size(0), reverse=True)
    logits = pad_sequence([item[0] for item in batches], batch_first=True)
    labels = torch.cat([item[1] for item in batches])
    return (
        logits,
        torch.IntTensor([item[0].size(0) for item in batches]),
        labels,
        torch.IntTensor([item[1].size(0) for item in batches]),
    )


infer_odim = 72
model = BLSTM(40, 32, infer_odim)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
loss_fn = nn.CTCLoss()
for _ in range(3):
    utterances = [(torch.randn(n, 40), torch.randint(1, infer_odim, (n // 12,))) for n in (204, 180, 164, 133)]
    logits, input_lengths, labels, label_lengths = sort_and_pad(utterances)
    netout, lengths = model(logits, input_lengths)
    loss = loss_fn(netout.log_softmax(-1).transpose(0, 1), labels, lengths, label_lengths)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item())
