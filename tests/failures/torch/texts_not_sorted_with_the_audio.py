"""Features are sorted by their duration, as the recurrence wants it, and the texts stay in the old order.

report: https://github.com/k2-fsa/snowfall/pull/47
record: batch-pairing-scrambled
expects: CTC301 too-short at step 0
"""

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

rng = np.random.default_rng(47)
SYMBOLS = 90


def supervisions(n=5):
    durations = np.linspace(24, 96, n).astype(int)
    rng.shuffle(durations[1:])  # the shortest one comes first
    texts = [torch.tensor(rng.permutation(SYMBOLS - 1)[: duration // 3] + 1) for duration in durations]
    return torch.tensor(durations), texts


rnn, output = nn.GRU(40, 48), nn.Linear(48, SYMBOLS)
optimizer = torch.optim.Adam([*rnn.parameters(), *output.parameters()], lr=1e-3)
for batch in range(3):
    num_frames, texts = supervisions()
    features = torch.randn(int(num_frames.max()), len(texts), 40)
    indices = torch.argsort(num_frames, descending=True)
    num_frames, features = num_frames[indices], features[:, indices]
    # right: texts = [texts[i] for i in indices]
    packed, _ = rnn(pack_padded_sequence(features, num_frames))
    nnet_output = output(pad_packed_sequence(packed)[0]).log_softmax(2)
    text_lengths = torch.tensor([len(text) for text in texts])
    tot_score = nn.functional.ctc_loss(nnet_output, torch.cat(texts), num_frames, text_lengths, zero_infinity=True)
    optimizer.zero_grad()
    tot_score.backward()
    optimizer.step()
    print(f"batch {batch}, objf {-tot_score.item():.4f}")
