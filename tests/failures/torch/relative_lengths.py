"""Relative lengths, cut to whole numbers, for a loss that wants frames: one frame for each utterance.

report: https://github.com/speechbrain/speechbrain/issues/496
record: relative-lengths
expects: CTC304 fraction at step 0
"""

import torch

N_TOKENS = 44


def ctc_loss(log_probs, targets, input_lens, target_lens, blank_index, reduction="mean"):
    """Lengths are fractions of the longest item of the batch."""
    input_lens = input_lens.int()  # right: input_lens = (input_lens * log_probs.shape[1]).round().int()
    target_lens = (target_lens * targets.shape[1]).round().int()
    log_probs = log_probs.transpose(0, 1)
    return torch.nn.functional.ctc_loss(
        log_probs, targets, input_lens, target_lens, blank_index, zero_infinity=True, reduction=reduction
    )


class CRDNN(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.LSTM(40, 32, batch_first=True)
        self.dnn = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.LeakyReLU(), torch.nn.Linear(32, N_TOKENS))

    def forward(self, feats):
        return self.dnn(self.rnn(feats)[0])


model = CRDNN()
optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
for epoch in range(2):
    for lens in ([1.0, 0.93, 0.71], [1.0, 0.88, 0.86], [1.0, 1.0, 0.65]):
        wav_lens = torch.tensor(lens)
        phns = torch.randint(1, N_TOKENS, (3, 20))
        p_ctc = model(torch.randn(3, 90, 40)).log_softmax(dim=-1)
        loss = ctc_loss(p_ctc, phns, wav_lens, wav_lens, blank_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch: {epoch}, loss {loss.item():.2f}")
