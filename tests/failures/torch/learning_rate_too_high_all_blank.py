"""A learning rate a hundred times too high: the first steps kill the hidden units, and every output is blank for ever.

report: https://github.com/meijieru/crnn.pytorch/issues/92
record: blank-collapse-ocr
expects: CTC701 constant-output at step 63
settings: {"thresholds": {"blank-collapse": {"grace_steps": 32, "calls": 32, "fall": 0.1}}}
"""

import torch
from torch import nn, optim

torch.manual_seed(92)
lr = 1.0  # right: lr = 0.03
nclass, width, steps = 11, 20, 120
glyphs = torch.randn(nclass, 12)


def get_batch(n=16, chars=4):
    """Lines of digits: each digit fills some columns, with nothing between them."""
    text = torch.randint(1, nclass, (n, chars))
    image = 0.1 * torch.randn(n, width, 12)
    for i in range(chars):
        image[:, 5 * i : 5 * i + 3] += glyphs[text[:, i]][:, None]
    return image, text


crnn = nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, nclass))
criterion = nn.CTCLoss()
optimizer = optim.Adam(crnn.parameters(), lr=lr)
scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.98)
for step in range(steps):
    image, text = get_batch()
    preds = crnn(image).permute(1, 0, 2).log_softmax(2)
    cost = criterion(preds, text, torch.full((16,), width), torch.full((16,), 4))
    optimizer.zero_grad()
    cost.backward()
    optimizer.step()
    scheduler.step()
    if step % 20 == 0 or step == steps - 1:
        raw = preds.argmax(2)[:, 0].tolist()
        print(f"{step} loss {cost.item():.4f} {''.join('-' if c == 0 else str(c - 1) for c in raw)}")
