"""The first steps kill the hidden units, and with nearly as many labels as frames "|" is the best guess, not the blank.

report: https://github.com/facebookresearch/fairseq/issues/3340
record: fairseq-wer100
expects: CTC702 few-frames at step 79
settings: {"thresholds": {"single-symbol-collapse": {"grace_steps": 32, "calls": 32, "fall": 0.1}}}
"""

import torch
from torch import nn

torch.manual_seed(3340)
symbols = ["<s>", "|", *"abcdefghijklmnopqrstuvwxyz"]
units = torch.randn(len(symbols), 20)
WORDS = ["a", "to", "i", "of", "be", "so", "we", "do", "go", "up", "or", "in"]
lr = 3.0  # right: lr = 0.01


def batch(n=8, words=4):
    """Short words; every symbol is a frame, a few are two."""
    rows = []
    for _ in range(n):
        text = "|".join(WORDS[i] for i in torch.randint(0, len(WORDS), (words,)))
        rows.append(torch.tensor([symbols.index(char) for char in f"|{text}|"]))
    stretched = [row.repeat_interleave((torch.rand(len(row)) < 0.1) + 1) for row in rows]
    feats = nn.utils.rnn.pad_sequence([units[row] for row in stretched], batch_first=True)
    feats = feats + 0.1 * torch.randn_like(feats)
    lengths = [torch.tensor([len(row) for row in part]) for part in (stretched, rows)]
    return feats, lengths[0], torch.cat(rows), lengths[1]


model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, len(symbols)))
optimizer = torch.optim.Adam(model.parameters(), lr=lr)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
for update in range(80):
    feats, frames, target, lengths = batch()
    lprobs = model(feats).log_softmax(-1)
    loss = nn.functional.ctc_loss(lprobs.transpose(0, 1), target, frames, lengths)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    if update % 20 == 19:
        print(f"{update + 1} loss {loss.item():.3f} {''.join(symbols[i] for i in lprobs[0].argmax(-1))}")
