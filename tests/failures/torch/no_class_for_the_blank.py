"""100 characters, 100 outputs: there is none for the blank, and the last character has no class.

report: https://discuss.pytorch.org/t/best-practices-to-solve-nan-ctc-loss/151913
record: num-classes-without-blank
expects: CTC201 no-class-for-blank at step 0
"""

import string

import torch
import torch.nn as nn

characters = list(string.printable)
char2idx = {char: i + 1 for i, char in enumerate(characters)}  # 0: blank
num_chars = len(characters)  # right: num_chars = len(characters) + 1


class CRNN(nn.Module):
    def __init__(self, num_chars, rnn_hidden_size=48):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        )
        self.linear1 = nn.Linear(16 * 8, rnn_hidden_size)
        self.rnn1 = nn.GRU(rnn_hidden_size, rnn_hidden_size, bidirectional=True, batch_first=True)
        self.linear2 = nn.Linear(rnn_hidden_size * 2, num_chars)

    def forward(self, batch):
        batch = self.cnn(batch).permute(0, 3, 1, 2)
        batch = self.linear1(batch.reshape(batch.size(0), batch.size(1), -1))
        batch, _ = self.rnn1(batch)
        return self.linear2(batch).permute(1, 0, 2)  # [T==10, batch_size, num_classes==num_features]


def compute_loss(text_batch, text_batch_logits):
    text_batch_logps = nn.functional.log_softmax(text_batch_logits, 2)  # [T, batch_size, num_classes]
    T, N, _ = text_batch_logps.shape
    targets = torch.tensor([char2idx[char] for text in text_batch for char in text])
    lengths = torch.tensor([len(text) for text in text_batch])
    return criterion(text_batch_logps, targets, torch.full((N,), T, dtype=torch.int32), lengths)


crnn = CRNN(num_chars)
criterion = nn.CTCLoss(blank=0)
optimizer = torch.optim.Adam(crnn.parameters(), lr=0.001)
for text_batch in [["g", "a{b}\x0c", "x=1", "Zq!"], ["(h i)", "w_0", "don't", "#"]]:
    optimizer.zero_grad()
    loss = compute_loss(text_batch, crnn(torch.rand(len(text_batch), 3, 32, 96)))
    loss.backward()
    nn.utils.clip_grad_norm_(crnn.parameters(), 5)
    optimizer.step()
    print(loss.item())
