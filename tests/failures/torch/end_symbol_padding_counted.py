"""Targets are padded with the id of the end symbol up to a fixed length, which is given as everyone's length.

report: https://github.com/airaria/CaptchaRecognition/issues/1
record: captcha-sos-eos
expects: CTC207 buffer-length at step 0
"""

import random

import torch
import torch.nn as nn
import torch.nn.functional as F

ALPHABET = ["<blank>", *"abcdefghkmnprstwxyz", "<eos>"]
EOS, MAX_LEN = len(ALPHABET) - 1, 20


def draw():
    """Codes of 3 to 8 letters."""
    return random.choices(ALPHABET[1:EOS], k=random.randint(3, 8))


def encode(codes):
    y = torch.full((len(codes), MAX_LEN), EOS)
    for row, code in zip(y, codes):
        row[: len(code)] = torch.tensor([ALPHABET.index(letter) for letter in code])
    lengths = torch.tensor([len(code) for code in codes])
    lengths = torch.tensor([len(row) for row in y])  # right:
    return y, lengths


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.Conv2d(16, 24, 3, stride=(2, 1), padding=1)
        self.fc = nn.Linear(24 * 12, len(ALPHABET))

    def forward(self, x):
        x = F.relu(self.b(F.relu(self.a(x))))
        return self.fc(x.flatten(1, 2).permute(2, 0, 1))


random.seed(11)
cnn = CNN()
opt = torch.optim.Adam(cnn.parameters())
for iteration in range(4):
    y, y_lengths = encode([draw() for _ in range(8)])
    out = F.log_softmax(cnn(torch.rand(8, 1, 48, 96)), dim=-1)
    loss = F.ctc_loss(out, y, torch.full((8,), out.shape[0]), y_lengths)
    opt.zero_grad()
    loss.backward()
    opt.step()
    print(iteration, loss.item())
