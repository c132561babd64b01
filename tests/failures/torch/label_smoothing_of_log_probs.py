"""Label smoothing as for cross-entropy, put between log_softmax and the loss.

report: https://github.com/pytorch/pytorch/issues/52241
record: ctc-grad-needs-log-softmax-in-graph
expects: CTC402 altered-after-softmax at step 1
"""

import numpy as np
import torch

CLASSES = 5  # bases of a nanopore read: blank, A, C, G, T
rng = np.random.default_rng(25)
torch.manual_seed(0)


def squiggle(n, samples=400):
    """Currents of reads; every base holds for about ten samples."""
    bases = rng.integers(1, CLASSES, (n, 30))
    current = np.repeat(bases, samples // 30 + 1, axis=1)[:, :samples] + rng.normal(0, 0.3, (n, samples))
    return torch.tensor(current[:, None], dtype=torch.float32), torch.tensor(bases)


encoder = torch.nn.Sequential(
    torch.nn.Conv1d(1, 16, 5, padding=2),
    torch.nn.SiLU(),
    torch.nn.Conv1d(16, 48, 9, stride=5, padding=4),
    torch.nn.SiLU(),
)
head = torch.nn.Linear(48, CLASSES)


def ctc_label_smoothing_loss(log_probs, targets, smoothing=0.1):
    log_probs = (1 - smoothing) * log_probs + smoothing * log_probs.mean(-1, keepdim=True)  # right:
    T, N, _ = log_probs.shape
    lengths = torch.full((N,), T), torch.full((N,), targets.shape[1])
    return torch.nn.functional.ctc_loss(log_probs, targets, *lengths, reduction="mean")


params = [*encoder.parameters(), *head.parameters()]
optimizer = torch.optim.RMSprop(params, lr=3e-3)
for chunk in range(6):
    signal, bases = squiggle(6)
    scores = head(encoder(signal).permute(2, 0, 1))
    loss = ctc_label_smoothing_loss(torch.log_softmax(scores, dim=-1), bases)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"chunk {chunk} loss {loss.item():.4f}")
