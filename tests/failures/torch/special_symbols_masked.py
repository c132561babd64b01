"""Outputs for <pad>, <s>, </s> and <unk> are masked, 'they never occur': but <pad> is the blank.

report: https://github.com/s3prl/s3prl/issues/570
record: dead-output-classes
expects: CTC403 masking at step 0
"""

import torch
from torch import nn

TOKENS = ["<pad>", "<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz|"]
CLIPS = [["hello", "all|good", "yes"], ["see|you", "soon", "bye"], ["apple", "tree", "moon|bee"]]


class Downstream(nn.Module):
    def __init__(self, upstream_dim=64, project_dim=32):
        super().__init__()
        self.projector = nn.Linear(upstream_dim, project_dim)
        self.rnn = nn.LSTM(project_dim, 32, batch_first=True)
        self.linear = nn.Linear(32, len(TOKENS))

    def forward(self, features):
        logits = self.linear(self.rnn(self.projector(features))[0])
        logits[..., :4] = -torch.inf  # right: logits[..., 1:4] = -1e4
        return logits


model = Downstream()
objective = nn.CTCLoss(blank=TOKENS.index("<pad>"))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for texts in CLIPS:
    labels = [torch.tensor([TOKENS.index(char) for char in text]) for text in texts]
    label_lens = torch.tensor([len(label) for label in labels])
    features = torch.randn(3, 30, 64)
    log_probs = model(features).log_softmax(dim=-1)
    loss = objective(log_probs.transpose(0, 1), torch.cat(labels), torch.tensor([30, 28, 25]), label_lens)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item())
