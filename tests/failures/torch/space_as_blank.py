"""The space between words is also the blank of the loss, as the vocabulary says.

report: https://github.com/yl4579/AuxiliaryASR/issues/10
record: blank-eq-space-auxasr
expects: CTC102 other-blank before training
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

import ctcguard

symbols = [" ", *"abcdefghijklmnopqrstuvwxyz", "'", "<blank>"]
LINES = ["the quick brown fox", "jumps over", "a lazy dog", "pack my box", "with five dozen", "liquor jugs"]


def batches(size=3):
    for start in range(0, len(LINES), size):
        texts = [torch.tensor([symbols.index(char) for char in line]) for line in LINES[start : start + size]]
        mels = [torch.randn(4 * len(text), 40) for text in texts]
        yield (
            pad_sequence(mels, batch_first=True),
            torch.tensor([len(mel) for mel in mels]),
            torch.cat(texts),
            torch.tensor([len(text) for text in texts]),
        )


def train():
    model = nn.ModuleDict({"rnn": nn.GRU(40, 32, batch_first=True), "proj": nn.Linear(32, len(symbols))})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.CTCLoss(blank=symbols.index(" "))  # right: criterion = nn.CTCLoss(blank=symbols.index("<blank>"))
    for epoch in range(2):
        for mels, mel_lengths, text, text_lengths in batches():
            scores = model["proj"](model["rnn"](mels)[0])
            loss = criterion(scores.log_softmax(-1).transpose(0, 1), text, mel_lengths, text_lengths)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch} eval/ctc {loss.item():.4f}")


with ctcguard.watch(vocabulary=symbols):
    train()
