"""Ids of the text begin at 0, which is the blank: the chainer, warp-ctc and builtin losses disagree.

report: https://github.com/espnet/espnet/issues/700
record: espnet-warpctc-blank0
expects: CTC203 blank-index at step 0
"""

import numpy as np
import torch
import torch.nn.functional as F

np.random.seed(700)


def pad_list(xs, pad_value):
    n_batch, max_len = len(xs), max(x.size(0) for x in xs)
    pad = xs[0].new_zeros(n_batch, max_len, *xs[0].size()[1:]).fill_(pad_value)
    for i in range(n_batch):
        pad[i, : xs[i].size(0)] = xs[i]
    return pad


class CTC(torch.nn.Module):
    def __init__(self, odim, eprojs):
        super().__init__()
        self.ctc_lo = torch.nn.Linear(eprojs, odim)

    def forward(self, hs_pad, hlens, ys_pad):
        ys = [y[y != -1] for y in ys_pad]  # parse padded ys
        olens = torch.from_numpy(np.fromiter((x.size(0) for x in ys), dtype=np.int32))
        ys_hat = self.ctc_lo(hs_pad).transpose(0, 1).log_softmax(2)
        return F.ctc_loss(ys_hat, torch.cat(ys).int(), hlens, olens, reduction="sum") / ys_hat.size(1)


idim, eprojs, odim = 83, 32, 52
encoder = torch.nn.LSTM(idim, eprojs, batch_first=True)
ctc = CTC(odim, eprojs)
optimizer = torch.optim.Adadelta([*encoder.parameters(), *ctc.parameters()], rho=0.95, eps=1e-8)
first = 0  # right: first = 1
for _ in range(3):
    ilens = np.sort(np.random.randint(40, 60, 5))[::-1].copy()
    xs = pad_list([torch.from_numpy(np.random.randn(n, idim)).float() for n in ilens], 0)
    ys = [np.random.randint(first, odim, np.random.randint(10, 16)) for _ in ilens]
    ys = pad_list([torch.from_numpy(y) for y in ys], -1)
    loss = ctc(encoder(xs)[0], torch.from_numpy(ilens), ys)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"main/loss_ctc: {loss.item():.3f}")
