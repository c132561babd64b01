"""The log of mel energies without a floor: digital silence is -inf, and its mean and variance are NaN.

report: https://github.com/xinjli/allosaurus/issues/64
report: https://github.com/NVIDIA-NeMo/Speech/issues/4549
record: nan-features-cmvn
expects: CTC403 non-finite-features at step 1
"""

import numpy as np
import torch
from torch import nn

rng = np.random.default_rng(64)
PHONES = 40
MEL = torch.rand(65, 20)


def energies(samples):
    frames = torch.from_numpy(samples).unfold(0, 128, 64)
    return torch.fft.rfft(frames).abs().square().float() @ MEL


def fbank(samples):
    return torch.log(energies(samples))  # right: return torch.log(energies(samples) + 1e-6)


def cmvn(feat):
    return (feat - feat.mean(dim=0)) / feat.std(dim=0)


def record(muted=False):
    samples = rng.normal(0, 0.1, rng.integers(2500, 3500))
    if muted:  # the microphone was switched on late
        samples[:400] = 0
    return cmvn(fbank(samples)), torch.tensor(rng.integers(1, PHONES, rng.integers(6, 11)))


class PhoneModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.blstm = nn.LSTM(20, 32, bidirectional=True, batch_first=True)
        self.dense = nn.Linear(64, PHONES)

    def forward(self, feats, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(feats, lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = nn.utils.rnn.pad_packed_sequence(self.blstm(packed)[0], batch_first=True)
        return self.dense(hidden).log_softmax(2)


model = PhoneModel()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(4):
    utterances = [record(muted=(step, i) == (1, 2)) for i in range(4)]
    feats = nn.utils.rnn.pad_sequence([feat for feat, _ in utterances], batch_first=True)
    lengths = torch.tensor([len(feat) for feat, _ in utterances])
    phones = [phones for _, phones in utterances]
    phone_lengths = torch.tensor([len(row) for row in phones])
    output = model(feats, lengths)
    loss = nn.functional.ctc_loss(output.transpose(0, 1), torch.cat(phones), lengths, phone_lengths)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    print(f"step {step} loss {loss.item():.3f}")
