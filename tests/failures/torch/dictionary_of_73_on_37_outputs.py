"""A dictionary of 73 characters, and pad_num still at 36: labels beyond the head from the first batch on.

report: https://github.com/PaddlePaddle/PaddleOCR/issues/6204
record: paddleocr-pgnet-padnum
expects: CTC101 missing-classes before training
"""

import random
import string

import torch
from torch import nn

import ctcguard

character_dict = [*string.digits, *string.ascii_letters, *"-.,:/&'!?()"]
config = {"pad_num": 36}  # right: config = {"pad_num": len(character_dict)}


class PGHead(nn.Module):
    def __init__(self, in_channels, character_length):
        super().__init__()
        self.conv_f_char = nn.Sequential(
            nn.Conv1d(in_channels, 48, 3, padding=1), nn.ReLU(), nn.Conv1d(48, character_length, 3, padding=1)
        )

    def forward(self, x):
        return self.conv_f_char(x).permute(2, 0, 1)


random.seed(6204)
head = PGHead(32, config["pad_num"] + 1)
optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
with ctcguard.watch(vocabulary=character_dict):
    for step in range(3):
        texts = ["".join(random.choices(character_dict, k=random.randint(3, 8))) for _ in range(5)] + ["0815"]
        tcl_label = torch.tensor([character_dict.index(char) for text in texts for char in text])
        label_t = torch.tensor([len(text) for text in texts])
        f_tcl_char = head(torch.randn(len(texts), 32, 64)).log_softmax(-1)
        input_lengths = torch.full((len(texts),), 64)
        loss = nn.functional.ctc_loss(
            f_tcl_char, tcl_label, input_lengths, label_t, blank=config["pad_num"], reduction="none"
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: ctc_loss {loss.item():.4f}")
