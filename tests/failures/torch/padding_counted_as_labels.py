"""Zero-padded targets, and the padded length for all of them: the tail of zeros is trained as real blanks.

report: https://github.com/Megvii-CSG/MegReader/issues/1
record: padding-counted-as-target
expects: CTC203 padding-counted at step 0
"""

import torch
from torch import nn

MAX_SIZE = 12
charset = "\t" + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def string_to_label(string, max_size=MAX_SIZE):
    label = torch.zeros(max_size, dtype=torch.int32)
    for index, char in enumerate(string):
        label[index] = charset.index(char)
    return label


class CTCDecoder(nn.Module):
    def __init__(self, in_channels, inner_channels=32):
        super().__init__()
        self.ctc_loss = nn.CTCLoss(reduction="mean")
        self.encode = nn.Sequential(
            nn.Conv2d(in_channels, inner_channels, 3, padding=1),
            nn.BatchNorm2d(inner_channels),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((1, 32)),
        )
        self.pred_conv = nn.Conv2d(inner_channels, len(charset), kernel_size=1)

    def forward(self, feature, targets, lengths):
        pred = self.pred_conv(self.encode(feature))  # N, C, 1, W
        pred = pred.squeeze(2).permute(2, 0, 1).log_softmax(dim=2)
        pred_size = torch.Tensor([pred.shape[0]] * pred.shape[1]).int()
        lengths = torch.full_like(lengths, targets.shape[1])  # right:
        return self.ctc_loss(pred, targets, pred_size, lengths)


plates = ["B7K129", "KX05ABZ", "911", "L4STMAN", "W0RD", "Q2", "TR41N", "H3LL0"]
decoder = CTCDecoder(3)
optimizer = torch.optim.SGD(decoder.parameters(), lr=0.007, momentum=0.9, weight_decay=1e-4)
targets = torch.stack([string_to_label(plate) for plate in plates])
lengths = torch.tensor([len(plate) for plate in plates], dtype=torch.int32)
for iteration in range(4):
    loss = decoder(torch.rand(len(plates), 3, 24, 96), targets, lengths)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step: {iteration}, loss: {loss.item():.6f}")
