"""Whatever the width of the image, the backbone gives 40 columns, for lines of up to 50 characters.

report: https://github.com/PaddlePaddle/PaddleOCR/issues/17876
record: paddleocr-T40-zero-loss
expects: CTC301 most-of-the-batch at step 0
"""

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

rng = np.random.default_rng(17876)
CHARSET_SIZE = 300


class PPHGNet(nn.Module):
    def __init__(self, out_channels=32):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=(4, 2), padding=1),
            nn.ReLU(),
            nn.Conv2d(16, out_channels, 3, stride=(4, 2), padding=1),
        )

    def forward(self, x):
        x = self.stem(x)
        if self.training:
            return F.adaptive_avg_pool2d(x, [1, 40])  # right: return F.adaptive_avg_pool2d(x, [1, x.shape[3] // 2])
        return F.avg_pool2d(x, [3, 2])


class CTCHead(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.fc = nn.Linear(in_channels, out_channels)

    def forward(self, x):
        return self.fc(x.squeeze(2).permute(0, 2, 1))


backbone, head = PPHGNet(), CTCHead(32, CHARSET_SIZE + 1)
optimizer = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=5e-4)
for global_step in range(3):
    length = rng.integers(41, 51, 4)
    length[0] = 35
    label = np.zeros((4, 50), dtype=np.int64)
    for row, count in zip(label, length):
        row[:count] = rng.permutation(CHARSET_SIZE)[:count] + 1
    predicts = head(backbone(torch.rand(4, 3, 48, 960))).permute(1, 0, 2)
    N, B, _ = predicts.shape
    loss = F.ctc_loss(
        predicts.log_softmax(2),
        torch.from_numpy(label),
        torch.full((B,), N),
        torch.from_numpy(length),
        zero_infinity=True,
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"global_step: {global_step + 1}, CTCLoss: {loss.item():f}")
