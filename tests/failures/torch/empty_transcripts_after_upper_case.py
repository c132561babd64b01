"""Transcripts in upper case, a vocabulary in lower case: every character is unknown and dropped, no label is left.

report: https://github.com/deepgram/kur/issues/35
record: kur-uppercase-empty
expects: CTC204 all-empty at step 15
"""

import torch
import torch.nn as nn

VOCAB = {char: i for i, char in enumerate("abcdefghijklmnopqrstuvwxyz'", start=1)}
MANIFEST = [("GO", 1.1), ("STOP", 1.2), ("LEFT", 1.4), ("LIGHTS", 1.5), ("LOUDER", 1.8), ("SILVER", 1.1)]


def clean(transcript):
    text = transcript.strip()  # right: text = transcript.strip().lower()
    return [VOCAB[char] for char in text if char in VOCAB]


def to_batches(manifest, size):
    for start in range(0, len(manifest), size):
        rows = manifest[start : start + size]
        labels = [clean(transcript) for transcript, _ in rows]
        frames = [int(50 * seconds) for _, seconds in rows]
        feats = torch.zeros(len(rows), max(frames), 40)
        for feat, count in zip(feats, frames):
            feat[:count] = torch.randn(count, 40)
        flat = torch.tensor([label for row in labels for label in row], dtype=torch.long)
        yield feats, torch.tensor(frames), flat, torch.tensor([len(row) for row in labels])


model = nn.GRU(40, 32, batch_first=True)
head = nn.Linear(32, len(VOCAB) + 1)
optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=1e-2)
for feats, frames, labels, label_lengths in to_batches(MANIFEST * 16, 6):
    log_probs = head(model(feats)[0]).log_softmax(-1).transpose(0, 1)
    loss = nn.functional.ctc_loss(log_probs, labels, frames, label_lengths)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"loss={loss.item():.3f}")
