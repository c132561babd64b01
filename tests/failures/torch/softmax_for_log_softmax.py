"""Softmax where the loss wants log_softmax: it is far below zero from the first batch.

report: https://github.com/modelscope/FunASR/issues/2755
record: softmax-not-log
expects: CTC402 probabilities at step 0
"""

import numpy as np
import torch
from torch import nn

rng = np.random.default_rng(7)
PHONES = 24  # 0 is the blank


class Encoder(nn.Module):
    def __init__(self, mels=40, hidden=48):
        super().__init__()
        self.rnn = nn.GRU(mels, hidden, batch_first=True, bidirectional=True)
        self.ctc_lo = nn.Linear(2 * hidden, PHONES)

    def forward(self, speech):
        out, _ = self.rnn(speech)
        return self.ctc_lo(out)


def make_batch(size=6, frames=60):
    speech_lengths = np.sort(rng.integers(40, frames + 1, size))[::-1].copy()
    speech_lengths[0] = frames
    text_lengths = rng.integers(5, 12, size)
    text = np.zeros((size, text_lengths.max()), dtype=np.int64)
    for row, count in zip(text, text_lengths):
        row[:count] = rng.integers(1, PHONES, count)
    speech = rng.standard_normal((size, frames, 40)).astype(np.float32)
    return map(torch.from_numpy, (speech, speech_lengths, text, text_lengths))


model = Encoder()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
ctc = nn.CTCLoss(blank=0)

for step in range(4):
    speech, speech_lengths, text, text_lengths = make_batch()
    posteriors = model(speech).softmax(dim=-1)  # right: posteriors = model(speech).log_softmax(dim=-1)
    loss = ctc(posteriors.transpose(0, 1), text, speech_lengths, text_lengths)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: ctc loss {loss.item():.3f}")
