"""Group norm over time takes the padding in: what a clip gives depends on the longest one of its batch.

report: https://github.com/huggingface/transformers/issues/21534
record: hf-padding-frames-counted
expects: CTC802 padding-leak at step 0
"""

import torch
from torch import nn


class FeatureEncoder(nn.Module):
    def __init__(self, dim=48):
        super().__init__()
        self.conv = nn.Conv1d(1, dim, 20, stride=10)
        self.scale, self.shift = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.out = nn.Linear(dim, 32)

    def forward(self, waves, samples):
        x = self.conv(waves[:, None]).transpose(1, 2)
        frames = (samples - 20) // 10 + 1
        valid = (torch.arange(x.shape[1])[None] < frames[:, None])[..., None].float()
        valid = torch.ones_like(valid)  # right:
        count = valid.sum(1, keepdim=True)
        mean = (x * valid).sum(1, keepdim=True) / count
        variance = ((x - mean).square() * valid).sum(1, keepdim=True) / count
        x = (x - mean) / (variance + 1e-5).sqrt() * self.scale + self.shift
        return self.out(torch.nn.functional.gelu(x)), frames


def batch(n=4):
    samples = torch.randint(300, 1200, (n,)).sort(descending=True).values
    waves = torch.zeros(n, int(samples[0]))
    for wave, count in zip(waves, samples):
        wave[:count] = torch.randn(int(count))
    return waves, samples


torch.manual_seed(21534)
model = FeatureEncoder()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(5):
    waves, samples = batch()
    logits, frames = model(waves, samples)
    labels, counts = torch.randint(1, 32, (4, 6)), torch.tensor([6, 6, 5, 4])
    loss = nn.functional.ctc_loss(logits.log_softmax(-1).transpose(0, 1), labels, frames, counts)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, loss.item())
