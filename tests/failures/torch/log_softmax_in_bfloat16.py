"""The head and its log_softmax run in bfloat16 and are cast to float32 for the loss: 8 bits for every log-prob.

report: https://github.com/speechbrain/speechbrain/issues/1803
record: half-precision-nan
expects: CTC405 softmax-in-half at step 0
"""

import torch
from torch import nn

torch.manual_seed(1803)


class Brain:
    def __init__(self):
        self.encoder = nn.Sequential(nn.Linear(80, 64), nn.LeakyReLU(), nn.Linear(64, 64), nn.LeakyReLU())
        self.ctc_lin = nn.Linear(64, 1000)
        parameters = [*self.encoder.parameters(), *self.ctc_lin.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=3e-4)

    def compute_forward(self, feats):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = self.ctc_lin(self.encoder(feats))
            logits = logits.bfloat16()  # right: logits = logits.float()
            p_ctc = nn.functional.log_softmax(logits, dim=-1, dtype=logits.dtype)
        return p_ctc.float()

    def fit_batch(self, feats, feat_lens, tokens, token_lens):
        p_ctc = self.compute_forward(feats)
        loss = nn.functional.ctc_loss(p_ctc.transpose(0, 1), tokens, feat_lens, token_lens)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


brain = Brain()
for _ in range(3):
    tokens = torch.randint(1, 1000, (4, 12))
    print(brain.fit_batch(torch.randn(4, 70, 80), torch.tensor([70, 66, 61, 50]), tokens, torch.tensor([12, 11, 9, 7])))
