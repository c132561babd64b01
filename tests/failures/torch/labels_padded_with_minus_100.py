"""Labels padded with -100 as for cross-entropy, and the padded width as target length: torch reads outside the tensor.

report: https://github.com/pytorch/pytorch/issues/193794
record: label-out-of-range-pytorch-kernel
expects: CTC202 ignore-index at step 0
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

torch.manual_seed(0)
PIECES = 128


class WaveEncoder(nn.Module):
    """Two strided convolutions on the waveform and a small transformer."""

    def __init__(self, dim=48):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(1, dim, 10, 5), nn.GELU(), nn.Conv1d(dim, dim, 8, 4), nn.GELU())
        layer = nn.TransformerEncoderLayer(dim, 4, 64, dropout=0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.lm_head = nn.Linear(dim, PIECES)

    def frames(self, samples):
        for kernel, stride in ((10, 5), (8, 4)):
            samples = (samples - kernel) // stride + 1
        return samples

    def forward(self, wave, samples):
        x = self.conv(wave[:, None]).transpose(1, 2)
        frames = self.frames(samples)
        mask = torch.arange(x.shape[1])[None] >= frames[:, None]
        return self.lm_head(self.encoder(x, src_key_padding_mask=mask)), frames


def collate(items):
    waves, labels = zip(*items)
    batch = {"wave": pad_sequence(waves, batch_first=True), "samples": torch.tensor([len(wave) for wave in waves])}
    batch["labels"] = pad_sequence(labels, batch_first=True, padding_value=-100)
    labels = batch["labels"]
    batch["label_lengths"] = (labels != 0).sum(-1)  # right: batch["label_lengths"] = (labels != -100).sum(-1)
    return batch


def corpus(n=8):
    for i in range(n):
        yield torch.randn(1600 - 60 * (i % 4)), torch.randint(1, PIECES, (14 - 2 * (i % 4),))


model = WaveEncoder()
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
for batch in torch.utils.data.DataLoader(list(corpus()), batch_size=4, collate_fn=collate):
    logits, frames = model(batch["wave"], batch["samples"])
    log_probs = nn.functional.log_softmax(logits, dim=-1, dtype=torch.float32).transpose(0, 1)
    loss = nn.functional.ctc_loss(log_probs, batch["labels"], frames, batch["label_lengths"], zero_infinity=True)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"{loss.item():.3f}")
