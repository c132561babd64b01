"""Subsampling by 8 as for word pieces, with phones as targets: most utterances have more labels than frames.

report: https://github.com/burchim/EfficientConformer/issues/5
record: efficientconformer-inf
expects: CTC301 most-of-the-batch at step 0
"""

import torch
from torch import nn

torch.manual_seed(5)
PHONES = 84
strides = (2, 2, 2)  # right: strides = (2, 2, 1)


def block(channels_in, channels_out, stride):
    return nn.Sequential(
        nn.Conv1d(channels_in, channels_out, 3, stride=stride, padding=1), nn.BatchNorm1d(channels_out), nn.SiLU()
    )


class EfficientConformerCTC(nn.Module):
    def __init__(self, dims=(80, 32, 40, 48)):
        super().__init__()
        self.blocks = nn.ModuleList(block(a, b, stride) for a, b, stride in zip(dims, dims[1:], strides))
        self.fc = nn.Linear(dims[-1], PHONES + 1)

    def forward(self, x, x_len):
        for module, stride in zip(self.blocks, strides):
            x, x_len = module(x), torch.div(x_len - 1, stride, rounding_mode="floor") + 1
        return self.fc(x.transpose(1, 2)), x_len


model = EfficientConformerCTC()
optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), weight_decay=1e-6)
loss_ctc = nn.CTCLoss(blank=0, reduction="none")
loss_sum = 0.0
for step in range(3):
    x_len = torch.tensor([152, 148, 140, 132])
    y_len = torch.tensor([24, 20, 18, 12])
    y = torch.stack([torch.randperm(PHONES)[:24] + 1 for _ in range(4)])
    logits, f_len = model(torch.randn(4, 80, 152), x_len)
    loss = loss_ctc(logits.log_softmax(-1).transpose(0, 1), y, f_len, y_len).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    loss_sum += loss.item()
    print(f"mean loss {loss_sum / (step + 1):.4f} - batch loss: {loss.item():.4f}")
