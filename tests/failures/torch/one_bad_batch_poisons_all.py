"""One utterance that is too short makes every parameter NaN in one step; clipping does not help.

report: https://github.com/k2-fsa/icefall/issues/1352
record: nan-gradient-poisoning
expects: CTC301 too-short at step 2
"""

import torch
from torch import nn


class Conformerish(nn.Module):
    def __init__(self, vocab=60, dim=40):
        super().__init__()
        self.embed = nn.Linear(80, dim)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, 4, 64, dropout=0.0, batch_first=True, norm_first=True) for _ in range(2)
        )
        self.ctc_output = nn.Linear(dim, vocab)

    def forward(self, x):
        x = self.embed(x)[:, ::4]
        for layer in self.layers:
            x = layer(x)
        return self.ctc_output(x).log_softmax(-1)


torch.manual_seed(1352)
model = Conformerish()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 10))
durations = [(200, 160, 120), (180, 176, 140), (200, 192, 24), (160, 120, 100), (140, 132, 124), (160, 152, 88)]
tokens = [(14, 12, 8), (15, 11, 9), (12, 14, 9), (10, 9, 9), (9, 11, 8), (8, 7, 7)]
min_frames = 0  # right: min_frames = 80
for frames, counts in zip(durations, tokens):
    keep = [i for i, n in enumerate(frames) if n >= min_frames]
    x_lens, y_lens = torch.tensor(frames)[keep], torch.tensor(counts)[keep]
    features = torch.randn(len(keep), int(x_lens.max()), 80)
    y = torch.cat([torch.randperm(59)[:count] + 1 for count in y_lens])
    loss = nn.functional.ctc_loss(model(features).transpose(0, 1), y, x_lens // 4, y_lens, reduction="sum")
    optimizer.zero_grad()
    loss.backward()
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    scheduler.step()
    print(f"loss {loss.item():.2f} grad_norm {float(grad_norm):.2f}")
