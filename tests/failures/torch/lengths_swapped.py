"""Target lengths stand where input lengths belong: the order of warp-ctc's README, which was wrong itself once.

report: https://github.com/SeanNaren/warp-ctc/pull/50
record: warpctc-arg-order
expects: CTC303 swapped at step 0
raises: RuntimeError
"""

import torch
from torch import nn

PHONEMES = 39


def loss_function(scores, y, x_lens, y_lens):
    log_probs = scores.log_softmax(dim=-1)
    criterion = nn.CTCLoss(blank=0)
    return criterion(log_probs, y, y_lens, x_lens)  # right: return criterion(log_probs, y, x_lens, y_lens)


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(64, 48, 5, padding=2), nn.BatchNorm1d(48), nn.ReLU(), nn.Conv1d(48, PHONEMES + 1, 1)
        )

    def forward(self, spectrogram):
        return self.layers(spectrogram).permute(2, 0, 1)


net = ConvNet()
opt = torch.optim.SGD(net.parameters(), lr=0.05)
for _ in range(2):
    x, x_lens = torch.randn(4, 64, 75), torch.tensor([75, 70, 62, 51])
    y, y_lens = torch.randint(1, PHONEMES + 1, (4, 21)), torch.tensor([21, 19, 18, 13])
    loss = loss_function(net(x), y, x_lens, y_lens)
    opt.zero_grad()
    loss.backward()
    opt.step()
    print(f"{loss.item():.3f}")
