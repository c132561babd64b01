"""Speech and print through the architectures that people train with CTC."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import nn

from benchmarks.clean.corpus import Family, Losses
from benchmarks.clean.task import GLYPH, Print, Speech
from tests.clean.lab import Batch, Lab, Tensor

family = Family("architectures")
STEPS = 60
CLASSES = 12


class Net(nn.Module):
    """Features (time, batch, 8) and lengths in, scores (time, batch, classes) and lengths out."""

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class FrameWise(Net):
    """Every frame alone."""

    def __init__(self, context: int = 0) -> None:
        super().__init__()
        self.context = context
        self.layers = nn.Sequential(nn.Linear(8 * (2 * context + 1), 32), nn.ReLU(), nn.Linear(32, CLASSES))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        width = 2 * self.context + 1
        padded = nn.functional.pad(features, (0, 0, 0, 0, self.context, self.context))
        return self.layers(padded.unfold(0, width, 1).flatten(2)), lengths


class Recurrent(Net):
    """LSTM or GRU, packed or not; packing cuts the time axis to the longest utterance."""

    def __init__(self, kind: type[nn.RNNBase], packed: bool) -> None:
        super().__init__()
        self.layer = kind(8, 16, bidirectional=True)  # type: ignore[call-arg]
        self.head, self.packed = nn.Linear(32, CLASSES), packed

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if not self.packed:
            return self.head(self.layer(features)[0]), lengths
        packed = nn.utils.rnn.pack_padded_sequence(features, lengths, enforce_sorted=False)
        return self.head(nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0])[0]), lengths


class Transformer(Net):
    """Batch first inside, with a mask of padded frames."""

    def __init__(self, first: bool = False) -> None:
        super().__init__()
        self.below, self.head = nn.Linear(8, 16), nn.Linear(16, CLASSES)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=first)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        padded = torch.arange(len(features)) >= lengths[:, None]
        hidden = self.layer(self.below(features).transpose(0, 1), src_key_padding_mask=padded)
        return self.head(hidden).transpose(0, 1), lengths


class Convolutions(Net):
    """Over time, with a stride in the first layer: lengths as the layer has them."""

    def __init__(self, stride: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.stride = stride
        self.front = nn.Sequential(nn.Conv1d(8, 24, 3, stride=stride, padding=1), norm(24), nn.ReLU())
        self.rest = nn.Sequential(nn.Conv1d(24, 24, 5, padding=2, groups=4), nn.GELU(), nn.Conv1d(24, CLASSES, 1))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.rest(self.front(features.permute(1, 2, 0)))
        return scores.permute(2, 0, 1), (lengths - 1) // self.stride + 1


class LengthAware(Net):
    """Convolutions with a group norm over valid frames only, and zeros in padded ones: nothing depends on padding."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.front, self.norm = nn.Conv1d(8, 24, 3, stride=stride, padding=1), nn.GroupNorm(4, 24)
        self.rest = nn.Sequential(nn.Conv1d(24, 24, 5, padding=2, groups=4), nn.GELU(), nn.Conv1d(24, CLASSES, 1))

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        lengths = (lengths - 1) // self.stride + 1
        hidden = self.front(features.permute(1, 2, 0))
        valid = torch.arange(hidden.shape[2]) < lengths[:, None, None]
        scores = self.rest(torch.relu(self.normalised(hidden, valid)) * valid)
        return scores.permute(2, 0, 1), lengths

    def normalised(self, hidden: Tensor, valid: Tensor) -> Tensor:
        """What the group norm makes of each utterance alone; (batch, channels, time) and (batch, 1, time)."""
        groups, inside = hidden.unflatten(1, (self.norm.num_groups, -1)), valid[:, None]
        count = inside.sum((2, 3), keepdim=True) * groups.shape[2]
        centred = groups - (groups * inside).sum((2, 3), keepdim=True) / count
        variance = (centred.square() * inside).sum((2, 3), keepdim=True) / count
        normed = (centred / (variance + self.norm.eps).sqrt()).flatten(1, 2)
        return normed * self.norm.weight[:, None] + self.norm.bias[:, None]


class Crnn(Net):
    """Convolutions over a page (height 8, columns), pooled, then an LSTM over columns: OCR as most people do it."""

    def __init__(self) -> None:
        super().__init__()
        self.page = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d((2, 1)),
            nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d((2, 2)),
        )  # fmt: skip
        self.layer = nn.LSTM(12 * GLYPH // 4, 20, bidirectional=True)
        self.head = nn.Linear(40, CLASSES)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        columns = self.page(features.permute(1, 2, 0)[:, None]).flatten(1, 2).permute(2, 0, 1)
        return self.head(self.layer(columns)[0]), lengths // 2


Batches = Callable[[int], tuple[Lab, Iterator[Batch]]]


def speech(labels: int = 5, slow: int = 1) -> Batches:
    """Utterances; ``slow`` times as many frames, for those who subsample."""

    def batches(seed: int) -> tuple[Lab, Iterator[Batch]]:
        lab = Speech(seed)
        found = (
            dataclasses.replace(
                batch, features=batch.features.repeat_interleave(slow, 0), input_lengths=slow * batch.input_lengths
            )
            for batch in lab.batches(STEPS, labels=labels)
        )
        return lab, found

    return batches


def pages(full: bool) -> Batches:
    """Lines of one width; their lengths full, or where the ink ends."""

    def batches(seed: int) -> tuple[Lab, Iterator[Batch]]:
        lab = Print(seed)

        def line() -> Batch:
            page = lab.page(size=8, width=48, labels=6)
            inked = (page.features < 0.9).any(-1).long()
            ends = len(inked) - inked.flip(0).argmax(0)
            return page if full else dataclasses.replace(page, input_lengths=ends)

        return lab, (line() for _ in range(STEPS))

    return batches


def training(make: Callable[[], Net], batches: Batches, rate: float = 1e-2) -> Callable[[int], Losses]:
    def train(seed: int) -> Losses:
        lab, source = batches(seed)
        net = make()
        optimizer = torch.optim.AdamW(net.parameters(), lr=rate)
        for batch in source:
            scores, lengths = net(batch.features, batch.input_lengths)
            optimizer.zero_grad()
            loss = lab.ctc(scores.log_softmax(-1), dataclasses.replace(batch, input_lengths=lengths))
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimizer.step()
            yield loss.item()

    return train


OVER_PADDING = "convolutions, stride 4, group norm"
"""Its norm takes its statistics from padded frames too: healthy to train, but CTC802 is right about it."""
NETS: dict[str, tuple[Callable[[], Net], Batches]] = {
    "frame-wise MLP": (FrameWise, speech()),
    "MLP with context": (lambda: FrameWise(3), speech()),
    "LSTM": (lambda: Recurrent(nn.LSTM, packed=False), speech()),
    "LSTM, packed": (lambda: Recurrent(nn.LSTM, packed=True), speech()),
    "GRU, packed": (lambda: Recurrent(nn.GRU, packed=True), speech()),
    "transformer": (Transformer, speech()),
    "transformer, norm first": (lambda: Transformer(first=True), speech()),
    "convolutions, batch norm": (lambda: Convolutions(1, nn.BatchNorm1d), speech()),
    "convolutions, stride 2": (lambda: Convolutions(2, nn.BatchNorm1d), speech(slow=2)),
    OVER_PADDING: (lambda: Convolutions(4, lambda size: nn.GroupNorm(4, size)), speech(slow=4)),
    "convolutions, stride 4, group norm over valid frames": (lambda: LengthAware(4), speech(slow=4)),
    "CNN-LSTM, lines of one width, full lengths": (Crnn, pages(full=True)),
    "CNN-LSTM, lines of one width": (Crnn, pages(full=False)),
    "LSTM, lines of one width, full lengths": (lambda: Recurrent(nn.LSTM, packed=False), pages(full=True)),
    "frame-wise MLP, lines of one width, full lengths": (lambda: FrameWise(3), pages(full=True)),
}  # fmt: skip
for name, (make, batches) in NETS.items():
    family.add(name, training(make, batches), seeds=4)
