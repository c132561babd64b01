"""Log-probs are clamped 'for stability', so that rare classes get more than a model with confident frames gave them.

report: https://github.com/pytorch/pytorch/issues/181534
record: ctc-grad-needs-log-softmax-in-graph
expects: CTC402 altered-after-softmax at step 0
"""

import torch
from torch import nn
from torch.nn import functional as F


class LineReader(nn.Module):
    """Reads a text line of 16 x 256 pixels."""

    def __init__(self, n_chars: int):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.LeakyReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.LeakyReLU(),
        )
        self.classifier = nn.Linear(32 * 4, n_chars + 1)
        nn.init.normal_(self.classifier.weight, std=0.5)

    def forward(self, lines: torch.Tensor) -> torch.Tensor:
        maps = self.features(lines)
        columns = maps.flatten(1, 2).permute(2, 0, 1)
        log_probs = F.log_softmax(self.classifier(columns), dim=2)
        return log_probs.clamp(min=-6.0)  # right: return log_probs


torch.manual_seed(0)
reader = LineReader(n_chars=94)
loss_fn = nn.CTCLoss(blank=94)
sgd = torch.optim.SGD(reader.parameters(), lr=0.01, momentum=0.9)

for epoch in range(3):
    lines = torch.randn(8, 1, 16, 256)
    transcripts = torch.randint(0, 94, (8, 14))
    log_probs = reader(lines)
    frames = torch.full((8,), log_probs.shape[0])
    chars = torch.randint(5, 15, (8,))
    loss = loss_fn(log_probs, transcripts, frames, chars)
    sgd.zero_grad()
    loss.backward()
    sgd.step()
    print(f"{epoch=} {loss.item()=:.3f}")
