"""Log-probs are taken out of the graph on their way to the loss: it is computed, and teaches nothing.

report: https://github.com/pytorch/pytorch/issues/82545
record: ctc-grad-needs-log-softmax-in-graph
expects: CTC603 detached at step 3
"""

import numpy as np
import torch
import torch.nn as nn

VOCAB = list("-abcdefghijklmnopqrstuvwxyz ")


def collate(samples):
    """Keeps the scores of a batch in one array, as the decoder wants them."""
    width = max(len(sample) for sample in samples)
    return torch.stack([nn.functional.pad(sample, (0, 0, 0, width - len(sample))) for sample in samples], 1)


acoustic_model = nn.GRU(13, 32, batch_first=True)
classifier = nn.Linear(32, len(VOCAB))
weight_decay = 1e-3
parameters = list(acoustic_model.parameters()) + list(classifier.parameters())
optimizer = torch.optim.Adam(parameters, lr=1e-3)
criterion = nn.CTCLoss(reduction="sum")
rng = np.random.default_rng(1)

for step in range(6):
    outputs, texts = [], []
    for _ in range(4):
        mfcc = torch.tensor(rng.normal(size=(1, rng.integers(30, 50), 13)), dtype=torch.float32)
        hidden, _ = acoustic_model(mfcc)
        log_probs = classifier(hidden).log_softmax(-1)[0]
        outputs.append(log_probs.detach())  # right: outputs.append(log_probs)
        texts.append(torch.tensor(rng.integers(1, len(VOCAB), rng.integers(4, 9))))
    lengths = torch.tensor([len(output) for output in outputs])
    text_lengths = torch.tensor([len(text) for text in texts])
    ctc = criterion(collate(outputs), torch.cat(texts), lengths, text_lengths)
    penalty = weight_decay * sum(parameter.square().sum() for parameter in parameters)
    loss = ctc + penalty
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step}: ctc {ctc.item():.1f} penalty {penalty.item():.4f}")
