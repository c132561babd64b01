"""A reader returns the same sentence for every recording.

report: https://github.com/huggingface/datasets/issues/2323
record: constant-labels
expects: CTC206 one-transcript at step 15
"""

import random

import torch
from torch import nn

SENTENCES = [
    "would such an act of refusal be useful",
    "she had your dark suit in greasy wash water",
    "do not ask me to carry an oily rag",
    "the reasons for this dive seemed foolish now",
    "production may fall far below expectations",
    "pizzerias are convenient for a quick lunch",
    "put the butcher block table in the garage",
    "draw every outer line first",
]
VOCAB = "|abcdefghijklmnopqrstuvwxyz"


class Timit:
    """Columns in chunks; rows are found by their index in the chunk."""

    def __init__(self, sentences, chunk=4):
        self.sentences, self.chunk = sentences, chunk

    def __len__(self):
        return len(self.sentences)

    def __getitem__(self, index):
        text = self.sentences[0]  # right: text = self.sentences[index]
        return torch.randn(2 * len(self.sentences[index]) + index % 5, 40), text


def collate(rows):
    feats, texts = zip(*rows)
    labels = [torch.tensor([VOCAB.index(char) for char in text.replace(" ", "|")]) + 1 for text in texts]
    lengths = [torch.tensor([len(item) for item in items]) for items in (feats, labels)]
    return nn.utils.rnn.pad_sequence(feats, batch_first=True), torch.cat(labels), *lengths


random.seed(2323)
timit = Timit(SENTENCES * 9)
order = random.sample(range(len(timit)), len(timit))
model = nn.Sequential(nn.Linear(40, 64), nn.GELU(), nn.Linear(64, len(VOCAB) + 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(18):
    feats, labels, feat_lengths, label_lengths = collate([timit[i] for i in order[4 * step : 4 * step + 4]])
    log_probs = model(feats).log_softmax(-1).transpose(0, 1)
    loss = nn.functional.ctc_loss(log_probs, labels, feat_lengths, label_lengths)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(step, f"{loss.item():.4f}")
