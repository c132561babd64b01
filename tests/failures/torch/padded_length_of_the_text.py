"""The length of every text is the padded one: zeros are counted, 30 labels on 30 columns with repeats have no path.

report: https://github.com/PaddlePaddle/Paddle/issues/22923
record: warpctc-zero-loss-infeasible
expects: CTC203 padding-counted at step 0
"""

import numpy as np
import torch
from torch import nn

MAX_LEN = 30
CLASSES = 65


def reader(batches, batch_size=4, seed=22923):
    rng = np.random.RandomState(seed)
    for _ in range(batches):
        images = rng.rand(batch_size, 1, 16, 120).astype("float32")
        labels = np.zeros((batch_size, MAX_LEN), dtype="int32")
        lengths = rng.randint(8, 21, batch_size)
        for label, n in zip(labels, lengths):
            label[:n] = rng.permutation(CLASSES - 1)[:n] + 1
        lengths = np.full(batch_size, labels.shape[1])  # right:
        yield torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(lengths)


net = nn.Sequential(nn.Conv2d(1, 24, (16, 4), stride=(1, 4)), nn.ReLU(), nn.Flatten(2), nn.Conv1d(24, CLASSES, 1))
opt = torch.optim.Adagrad(net.parameters(), lr=0.02)
for image, label, length in reader(4):
    out = net(image).permute(2, 0, 1)
    columns = torch.full_like(length, out.shape[0])
    cost = nn.functional.ctc_loss(out.log_softmax(-1), label, columns, length, zero_infinity=True)
    opt.zero_grad()
    cost.backward()
    opt.step()
    print("cost", cost.item())
