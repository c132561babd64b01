"""Labels that begin at 1, from the time when class 0 was the blank; now the last class is, and so is the last label.

report: https://github.com/apache/mxnet/pull/7727
record: mxnet-blank-switch
expects: CTC203 blank-index at step 0
"""

import numpy as np
import torch

digits = "0123456789"
num_classes = len(digits) + 1
ids = {digit: i + 1 for i, digit in enumerate(digits)}  # right: ids = {digit: i for i, digit in enumerate(digits)}


def captcha(length, rng):
    """Digits drawn as bars on 80 columns of 30 pixels."""
    code = "".join(rng.choice(list(digits), length))
    image = rng.random((80, 30))
    for place, digit in enumerate(code):
        image[place * 80 // length : place * 80 // length + 6, : 3 * int(digit) + 1] += 2
    return image, [ids[digit] for digit in code]


rng = np.random.default_rng(7727)
lstm = torch.nn.LSTM(30, 50, batch_first=True)
dense = torch.nn.Linear(50, num_classes)
trainer = torch.optim.SGD([*lstm.parameters(), *dense.parameters()], lr=0.05, momentum=0.9)
for batch in range(4):
    images, codes = zip(*[captcha(int(rng.integers(3, 6)), rng) for _ in range(16)])
    data = torch.tensor(np.stack(images), dtype=torch.float32)
    label = torch.full((16, 5), -1)
    for row, code in zip(label, codes):
        row[: len(code)] = torch.tensor(code)
    pred = dense(lstm(data)[0]).log_softmax(-1)
    loss = torch.nn.functional.ctc_loss(
        pred.swapaxes(0, 1), label, torch.full((16,), 80), (label >= 0).sum(1), blank=num_classes - 1
    )
    trainer.zero_grad()
    loss.backward()
    trainer.step()
    print("batch", batch, "loss", loss.item())
