"""Energies of 16-bit samples in fp16, which ends at 65504: a loud clip is inf, then NaN.

report: https://github.com/facebookresearch/fairseq/issues/1529
record: half-precision-nan
expects: CTC403 non-finite-features at step 0
"""

import torch
from torch import nn
from torch.nn import functional as F


class Frontend(nn.Module):
    """Frames of 16-bit samples to log energies of bands."""

    def __init__(self, bands=16, frame=64):
        super().__init__()
        self.frame = frame
        self.filters = nn.Conv1d(1, bands, frame, stride=frame // 2, bias=False)

    def forward(self, samples):
        bands = self.filters(samples[:, None] / 256)
        bands = bands.half()  # right:
        energy = bands.square()
        return torch.log(1 + energy).float().transpose(1, 2)


class Model(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.frontend = Frontend()
        self.mix = nn.GRU(16, 32, batch_first=True)
        self.proj = nn.Linear(32, vocab)

    def forward(self, samples):
        features = F.layer_norm(self.frontend(samples), (16,))
        return self.proj(self.mix(features)[0])


torch.manual_seed(1529)
model = Model(vocab=32)
nn.init.uniform_(model.frontend.filters.weight, -1, 1)
optimizer = torch.optim.Adam(model.parameters(), lr=5e-5)
for update in range(3):
    loudness = torch.tensor([300.0, 800.0, 1500.0, 25000.0])
    samples = (torch.randn(4, 1600) * loudness[:, None]).clamp(-32768, 32767).round()
    target = torch.randint(1, 32, (4, 9))
    lprobs = F.log_softmax(model(samples).float(), dim=-1).transpose(0, 1)
    lengths = torch.full((4,), lprobs.shape[0])
    loss = F.ctc_loss(lprobs, target, lengths, torch.full((4,), 9), reduction="sum", zero_infinity=True)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"| epoch 001: {update} | loss={loss.item() / 36:.3f}")
