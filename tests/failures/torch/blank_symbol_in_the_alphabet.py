"""'-' is the blank of the converter and also a character of the labels.

report: https://github.com/Holmeyoung/crnn-pytorch/issues/34
record: blank-encode-plus-one-decode
expects: CTC203 blank-index at step 2
"""

import torch
import torch.nn as nn
import torch.optim as optim

alphabet = "-0123456789"
nclass = len(alphabet)
LABELS = ["139 77 402 8", "55 6021 90 313", "03-19 2 70-4 68", "12-12 999 1 40", "5-5 81 7 22"]


class BidirectionalLSTM(nn.Module):
    def __init__(self, nIn, nHidden, nOut):
        super().__init__()
        self.rnn = nn.LSTM(nIn, nHidden, bidirectional=True)
        self.embedding = nn.Linear(nHidden * 2, nOut)

    def forward(self, input):
        recurrent, _ = self.rnn(input)
        T, b, h = recurrent.size()
        return self.embedding(recurrent.view(T * b, h)).view(T, b, -1)


def encode(text):
    length = [len(s) for s in text]
    result = [alphabet.index(char) for s in text for char in s]
    # right: length, result = [len(s.replace("-", "")) for s in text], [label for label in result if label != 0]
    return torch.IntTensor(result), torch.IntTensor(length)


net = nn.Sequential(nn.Conv1d(32, 24, 3, padding=1), nn.ReLU())
rnn = BidirectionalLSTM(24, 16, nclass)
criterion = nn.CTCLoss()
optimizer = optim.RMSprop([*net.parameters(), *rnn.parameters()], lr=1e-4)
for i, line in enumerate(LABELS):
    cpu_texts = line.split()
    t, l = encode(cpu_texts)  # noqa: E741
    preds = rnn(net(torch.rand(len(cpu_texts), 32, 26)).permute(2, 0, 1)).log_softmax(2)
    preds_size = torch.IntTensor([preds.size(0)] * len(cpu_texts))
    cost = criterion(preds, t, preds_size, l)
    optimizer.zero_grad()
    cost.backward()
    optimizer.step()
    print(f"[{i}/{len(LABELS)}] Loss: {cost.item():.4f}")
