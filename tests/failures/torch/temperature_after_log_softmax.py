"""A temperature after the softmax: torch's gradient is for log_softmax as the last step, and silently wrong here.

report: https://github.com/pytorch/pytorch/issues/127608
record: ctc-grad-needs-log-softmax-in-graph
expects: CTC402 altered-after-softmax at step 0
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

TEMPERATURE = 1.5


class Student(nn.Module):
    def __init__(self, in_dim=80, hidden=64, num_tokens=48):
        super().__init__()
        self.subsample = nn.Conv1d(in_dim, hidden, 3, stride=2, padding=1)
        self.block = nn.TransformerEncoderLayer(hidden, 4, 96, dropout=0.0, batch_first=True)
        self.ctc = nn.Linear(hidden, num_tokens)

    def forward(self, feats, feat_lens):
        h = self.subsample(feats.transpose(1, 2)).transpose(1, 2)
        h = self.block(F.gelu(h))
        log_probs = F.log_softmax(self.ctc(h), dim=-1)
        log_probs = log_probs / TEMPERATURE  # right:
        return log_probs, (feat_lens + 1) // 2


torch.manual_seed(42)
student = Student()
optimizer = torch.optim.AdamW(student.parameters(), lr=2e-4)
for batch_idx in range(3):
    feat_lens = torch.tensor([100, 93, 71, 64])
    feats = torch.randn(4, 100, 80)
    token_lens = torch.tensor([12, 10, 9, 7])
    tokens = torch.randint(1, 48, (4, 12))
    log_probs, out_lens = student(feats, feat_lens)
    loss = F.ctc_loss(log_probs.permute(1, 0, 2), tokens, out_lens, token_lens, reduction="sum") / 4
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    print(f"batch {batch_idx}, loss {loss.item():.2f}")
