"""zero_infinity 'saves a lot of time in data cleaning': the filter compares tokens with frames before subsampling.

report: https://github.com/wenet-e2e/wenet/pull/2299
record: wenet-zero-infinity
expects: CTC301 too-short at step 0
"""

import random

import torch

random.seed(2299)
torch.manual_seed(2299)


def source(n):
    for i in range(n):
        frames = random.randint(150, 240)
        yield {
            "key": f"BAC009S{i:04}",
            "feat": torch.randn(frames, 80),
            "label": random.choices(range(1, 400), k=random.randint(6, 14)),
        }
        if i % 5 == 3:  # a wrong segment: a long sentence for a short piece of audio
            yield {"key": f"IC0001W{i:04}", "feat": torch.randn(60, 80), "label": random.choices(range(1, 400), k=26)}


def filter(data, subsampling=1, min_output_input_ratio=0.0005, max_output_input_ratio=1.0):
    for sample in data:
        num_frames = sample["feat"].size(0) // subsampling
        if min_output_input_ratio < len(sample["label"]) / num_frames < max_output_input_ratio:
            yield sample


def batch(data, size=6):
    buf = []
    for sample in data:
        buf.append(sample)
        if len(buf) == size:
            yield sorted(buf, key=lambda item: -item["feat"].size(0))
            buf = []


def padding(data):
    for items in data:
        feats = torch.nn.utils.rnn.pad_sequence([item["feat"] for item in items], batch_first=True)
        labels = [torch.tensor(item["label"]) for item in items]
        yield (
            feats,
            torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-1),
            torch.tensor([item["feat"].size(0) for item in items]),
            torch.tensor([len(item["label"]) for item in items]),
        )


class Conv2dSubsampling4(torch.nn.Module):
    def __init__(self, odim=32):
        super().__init__()
        self.conv = torch.nn.Sequential(
            torch.nn.Conv2d(1, 4, 3, 2), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3, 2), torch.nn.ReLU()
        )
        self.out = torch.nn.Linear(4 * 19, odim)

    def forward(self, x, lengths):
        x = self.conv(x.unsqueeze(1))
        x = self.out(x.transpose(1, 2).flatten(2))
        return x, ((lengths - 1) // 2 - 1) // 2


encoder, ctc_lo = Conv2dSubsampling4(), torch.nn.Linear(32, 400)
optimizer = torch.optim.Adam([*encoder.parameters(), *ctc_lo.parameters()], lr=2e-3)
filtered = filter(source(24))  # right: filtered = filter(source(24), subsampling=5, max_output_input_ratio=0.9)
for feats, target, feats_lengths, target_lengths in padding(batch(filtered)):
    hs_pad, hlens = encoder(feats, feats_lengths)
    ys_hat = ctc_lo(hs_pad).transpose(0, 1).log_softmax(2)
    loss = torch.nn.functional.ctc_loss(ys_hat, target, hlens, target_lengths, reduction="sum", zero_infinity=True)
    loss = loss / ys_hat.size(1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"TRAIN Batch loss_ctc {loss.item():.6f}")
