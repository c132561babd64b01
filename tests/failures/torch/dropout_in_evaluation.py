"""F.dropout without training=self.training: two evaluations of the same batch differ.

report: https://github.com/espnet/espnet/pull/3539
record: espnet-fdropout-eval
expects: CTC803 dropout-in-evaluation at step 0
settings: {"probe_model": true}
"""

import torch
import torch.nn.functional as F


class CTC(torch.nn.Module):
    def __init__(self, odim, encoder_output_size, dropout_rate=0.2):
        super().__init__()
        self.dropout_rate = dropout_rate
        self.ctc_lo = torch.nn.Linear(encoder_output_size, odim)

    def forward(self, hs_pad, hlens, ys_pad, ys_lens):
        p = self.dropout_rate
        hs_pad = F.dropout(hs_pad, p)  # right: hs_pad = F.dropout(hs_pad, p, training=self.training)
        ys_hat = self.ctc_lo(hs_pad).log_softmax(2)
        return F.ctc_loss(ys_hat.transpose(0, 1), ys_pad, hlens, ys_lens, reduction="sum") / hs_pad.size(0)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.LSTM(40, 48, batch_first=True)
        self.ctc = CTC(60, 48)

    def forward(self, speech, speech_lengths, text, text_lengths):
        return self.ctc(self.encoder(speech)[0], speech_lengths, text, text_lengths)


def make():
    speech, text = torch.randn(4, 50, 40), torch.randint(1, 60, (4, 9))
    return speech, torch.tensor([50, 48, 45, 40]), text, torch.tensor([9, 8, 8, 6])


torch.manual_seed(3539)
model, validation = Model(), [make() for _ in range(2)]
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(3):
    model.train()
    for _ in range(2):
        loss = model(*make())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        cv_loss = sum(model(*batch).item() for batch in validation) / len(validation)
    print(f"epoch {epoch} cv_loss_ctc {cv_loss:.4f}")
