"""Padded frames are divided by their deviation of 0: the loss does not read them, its gradient does.

report: https://github.com/google-deepmind/optax/pull/293
record: optax-nan-in-padded-frames
expects: CTC601 padded-frames at step 0
"""

import torch
import torch.nn.functional as F

torch.manual_seed(293)


def normalise(frames):
    """Mean 0 and deviation 1 in every frame."""
    mean, deviation = frames.mean(-1, keepdim=True), frames.std(-1, keepdim=True)
    return (frames - mean) / deviation  # right: return (frames - mean) / (deviation + 1e-6)


weights = {
    "w1": torch.nn.Parameter(torch.randn(40, 48) / 7),
    "b1": torch.nn.Parameter(torch.zeros(48)),
    "w2": torch.nn.Parameter(torch.randn(48, 28) / 7),
    "b2": torch.nn.Parameter(torch.zeros(28)),
}


def forward(x):
    hidden = torch.relu(x @ weights["w1"] + weights["b1"])
    return F.log_softmax(hidden @ weights["w2"] + weights["b2"], dim=-1)


optimizer = torch.optim.Adam(weights.values(), lr=1e-3)
for step in range(4):
    lengths = torch.tensor([50, 44, 37, 31])
    x = torch.randn(4, 50, 40)
    x[torch.arange(50)[None] >= lengths[:, None]] = 0
    y, y_lengths = torch.randint(1, 28, (4, 8)), torch.tensor([8, 7, 7, 5])
    loss = F.ctc_loss(forward(normalise(x)).transpose(0, 1), y, lengths, y_lengths)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, f"{loss.item():.3f}")
