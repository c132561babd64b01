"""The model ends in a softmax, and the loss applies log_softmax to that: the loss stays near frames x ln(classes).

report: https://github.com/mindee/doctr/pull/195
record: double-softmax-doctr
expects: CTC404 softmax-before-log-softmax at step 0
"""

import string

import numpy as np
import torch
from torch import nn
from torch.nn.functional import ctc_loss, log_softmax

VOCAB = string.digits + string.ascii_letters + string.punctuation


class MiniCRNN(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.vocab = vocab
        self.feat_extractor = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d((4, 2)), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
        )
        self.decoder = nn.LSTM(16 * 8, 32, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(64, len(vocab) + 1)

    def build_target(self, gts):
        encoded = np.full((len(gts), max(map(len, gts))), len(self.vocab), dtype=np.int64)
        for row, word in zip(encoded, gts):
            row[: len(word)] = [self.vocab.index(char) for char in word]
        return torch.from_numpy(encoded), torch.tensor([len(word) for word in gts])

    def compute_loss(self, model_output, target):
        gt, seq_len = self.build_target(target)
        batch_len = model_output.shape[0]
        input_length = model_output.shape[1] * torch.ones(size=(batch_len,), dtype=torch.int32)
        logits = model_output.permute(1, 0, 2)
        return ctc_loss(log_softmax(logits, dim=2), gt, input_length, seq_len, len(self.vocab))

    def forward(self, x, target):
        features = self.feat_extractor(x)
        c, h, w = features.shape[1], features.shape[2], features.shape[3]
        features_seq = torch.reshape(features, shape=(-1, h * c, w)).transpose(1, 2)
        logits, _ = self.decoder(features_seq)
        logits = self.linear(logits)
        logits = logits.softmax(dim=-1)  # right:
        return self.compute_loss(logits, target)


rng = np.random.default_rng(12)
model = MiniCRNN(VOCAB)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(4):
    words = ["".join(rng.choice(list(VOCAB), rng.integers(2, 9))) for _ in range(6)]
    images = torch.rand(6, 3, 32, 64)
    train_loss = model(images, words)
    optimizer.zero_grad()
    train_loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5)
    optimizer.step()
    print(f"Training loss: {train_loss.item():.6}")
