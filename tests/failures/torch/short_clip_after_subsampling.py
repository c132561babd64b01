"""A clip of 11 frames has two of them left after subsampling by 4, and a transcript of five tokens.

report: https://github.com/SeanNaren/deepspeech.pytorch/issues/94
record: too-long-asr-subsampling
expects: CTC301 too-short at step 1
"""

import torch
import torch.nn as nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

LABELS = "_'abcdefghijklmnopqrstuvwxyz "
MANIFEST = [
    (160, "please call"), (152, "stella"), (144, "ask her"), (140, "to bring"),
    (132, "these"), (120, "things"), (96, "with her"), (11, "from "),
    (128, "the store"), (100, "six"), (92, "spoons"), (88, "fresh"),
]  # fmt: skip


class SpectrogramDataset(Dataset):
    def __init__(self, manifest):
        # right: manifest = [(frames, text) for frames, text in manifest if frames // 4 >= len(text)]
        self.manifest = manifest

    def __len__(self):
        return len(self.manifest)

    def __getitem__(self, index):
        frames, text = self.manifest[index]
        return torch.randn(frames, 64), [LABELS.index(char) for char in text]


def _collate_fn(batch):
    batch = sorted(batch, key=lambda sample: len(sample[0]), reverse=True)
    inputs = torch.zeros(len(batch), len(batch[0][0]), 64)
    for row, (spect, _) in zip(inputs, batch):
        row[: len(spect)] = spect
    targets = torch.IntTensor([label for _, labels in batch for label in labels])
    sizes = [torch.IntTensor([len(sample[i]) for sample in batch]) for i in range(2)]
    return inputs, targets, *sizes


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm1 = nn.GRU(64, 32, batch_first=True)
        self.lstm2 = nn.GRU(32 * 4, 32, batch_first=True)
        self.fc = nn.Linear(32, len(LABELS))

    def forward(self, x, lengths):
        h, _ = self.lstm1(x)
        h = h[:, : h.size(1) // 4 * 4].reshape(h.size(0), -1, 32 * 4)
        return self.fc(self.lstm2(h)[0]).transpose(0, 1).log_softmax(2), lengths // 4


dataset = SpectrogramDataset(MANIFEST)
loader = DataLoader(dataset, batch_sampler=BatchSampler(SequentialSampler(dataset), 4, False), collate_fn=_collate_fn)
model = Pyramid()
criterion = nn.CTCLoss(reduction="sum")
optimizer = torch.optim.SGD(model.parameters(), lr=3e-4, momentum=0.9)
avg_loss = 0
for i, (inputs, targets, input_sizes, target_sizes) in enumerate(loader):
    out, output_sizes = model(inputs, input_sizes)
    loss = criterion(out, targets, output_sizes, target_sizes) / inputs.size(0)
    loss_value = loss.item()
    if loss_value == float("inf"):
        print("WARNING: received an inf loss, setting loss value to 0")
        loss_value = 0
    avg_loss += loss_value
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 400)
    optimizer.step()
    print(f"[{i + 1}/{len(loader)}] Loss {loss_value:.4f} ({avg_loss / (i + 1):.4f})")
