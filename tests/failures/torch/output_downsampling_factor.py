"""The output is not downsampled once more, but its lengths are: half of every utterance has to hold the whole text.

report: https://github.com/k2-fsa/icefall/issues/2042
record: icefall-crctc-grad-scale
expects: CTC304 subsampled-twice at step 7
"""

import torch
from torch import nn

torch.manual_seed(2042)


class Encoder(nn.Module):
    def __init__(self, output_downsampling_factor, dim=48):
        super().__init__()
        self.embed = nn.Conv1d(80, dim, 3, stride=2, padding=1)
        self.output_downsampling_factor = output_downsampling_factor
        self.layer = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x, x_lens):
        x = self.embed(x.transpose(1, 2)).transpose(1, 2)
        lengths = (x_lens + 1) // 2
        x, _ = self.layer(x)
        return x, lengths // self.output_downsampling_factor


factor = 2  # right: factor = 1
encoder, ctc_output = Encoder(factor), nn.Linear(48, 500)
optimizer = torch.optim.AdamW([*encoder.parameters(), *ctc_output.parameters()], lr=1e-3)
for batch_idx in range(10):
    x_lens = torch.randint(100, 240, (4,)).sort(descending=True).values
    x = torch.randn(4, int(x_lens[0]), 80)
    y_lens = x_lens // 12
    y = torch.randint(1, 500, (int(y_lens.sum()),))
    encoder_out, encoder_out_lens = encoder(x, x_lens)
    log_probs = ctc_output(encoder_out).log_softmax(-1)
    ctc_loss = nn.functional.ctc_loss(log_probs.permute(1, 0, 2), y, encoder_out_lens, y_lens, reduction="sum")
    loss = 0.2 * ctc_loss / x_lens.sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"batch {batch_idx}, ctc_loss={loss.item():.4g}")
