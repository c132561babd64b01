"""Padded targets are flattened into one row with their padding: every utterance but the first gets other labels.

report: https://github.com/baidu-research/warp-ctc/issues/153
record: warpctc-tf-blank-swap
expects: CTC303 sum-mismatch at step 0
raises: RuntimeError
"""

import numpy as np
import torch
from torch import nn

np.random.seed(153)
torch.manual_seed(153)
PAD, BLANK = 0, 40


def next_batch(batch_size=4):
    src_len = np.sort(np.random.randint(50, 70, batch_size))[::-1].copy()
    tgt_len = np.random.randint(6, 14, batch_size)
    src = np.zeros((batch_size, src_len[0], 39), dtype=np.float32)
    tgt = np.full((batch_size, tgt_len.max()), PAD, dtype=np.int32)
    for b in range(batch_size):
        src[b, : src_len[b]] = np.random.randn(src_len[b], 39)
        tgt[b, : tgt_len[b]] = np.random.randint(1, BLANK, tgt_len[b])
    return torch.from_numpy(src), torch.from_numpy(src_len), torch.from_numpy(tgt), torch.from_numpy(tgt_len)


encoder = nn.LSTM(39, 48, batch_first=True)
output = nn.Linear(48, BLANK + 1)
optimizer = torch.optim.Adam([*encoder.parameters(), *output.parameters()], 1e-3)
for step in range(3):
    src, src_len, tgt, tgt_len = next_batch()
    flat_tgt = tgt.flatten()  # right: flat_tgt = tgt[tgt != PAD]
    logits = output(encoder(src)[0])
    log_probs = nn.functional.log_softmax(logits.transpose(0, 1), dim=-1)
    loss = nn.functional.ctc_loss(log_probs, flat_tgt, src_len, tgt_len, blank=BLANK, reduction="mean")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("step", step, "loss", loss.item())
