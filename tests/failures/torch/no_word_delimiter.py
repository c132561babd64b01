"""The dictionary has no '|', which stands for the space between words: it becomes <unk>.

report: https://github.com/facebookresearch/fairseq/issues/2964
record: word-delimiter-missing
expects: CTC105 missing-delimiter at step 15
"""

import torch
from torch import nn

import ctcguard

LTR = list("ETAONIHSRDLUMWCFGYPBVK'XJQZ")  # right: LTR = list("|ETAONIHSRDLUMWCFGYPBVK'XJQZ")


class Dictionary:
    def __init__(self, symbols):
        self.symbols = ["<s>", "<pad>", "</s>", "<unk>", *symbols]
        self.indices = {symbol: i for i, symbol in enumerate(self.symbols)}

    def encode_line(self, line):
        return [self.indices.get(word, self.indices["<unk>"]) for word in line.split()]


def ltr(text):
    return " ".join(text.replace(" ", "|")) + " |"


target_dictionary = Dictionary(LTR)
texts = ["A MAN SAID TO THE UNIVERSE", "SIR I EXIST", "GO NOW", "WE DO NOT KNOW IT AT ALL"]
model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, len(target_dictionary.symbols)))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
with ctcguard.watch(vocabulary=target_dictionary.symbols):
    for _ in range(18):
        target = [target_dictionary.encode_line(ltr(text)) for text in texts]
        target_lengths = torch.tensor([len(row) for row in target])
        frames = 2 * target_lengths + 10
        net_output = model(torch.randn(int(frames.max()), 4, 32))
        lprobs = nn.functional.log_softmax(net_output, dim=-1)
        flat = torch.tensor([index for row in target for index in row])
        loss = nn.functional.ctc_loss(
            lprobs, flat, frames, target_lengths, blank=0, reduction="sum", zero_infinity=True
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"loss {loss.item() / target_lengths.sum().item():.3f}")
