"""Small recognisers for the tests of the model probe: right ones, and ones with a mistake inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

CLASSES, FEATURES = 12, 8
Mistake = Callable[[Tensor], Tensor]


def as_it_is(x: Tensor) -> Tensor:
    return x


def valid(x: Tensor, lengths: Tensor) -> Tensor:
    """Which frames are valid, (batch, time)."""
    return torch.arange(x.shape[1]) < lengths[:, None]


class Recurrent(nn.Module):
    """Convolutions without masks, then a BiLSTM: (batch, time, features) to log-probs (time / 2, batch, classes)."""

    def __init__(
        self, packed: bool = True, batch_first: bool = True, before: Mistake = as_it_is, after: Mistake = as_it_is
    ) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(FEATURES, 24, 5, stride=2, padding=2), nn.BatchNorm1d(24), nn.ReLU(),
            nn.Conv1d(24, 24, 3, padding=1), nn.ReLU(), nn.Dropout(0.1),
        )  # fmt: skip
        self.rnn = nn.LSTM(24, 24, batch_first=batch_first, bidirectional=True)
        self.head = nn.Linear(48, CLASSES)
        self.packed, self.before, self.after = packed, before, after

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = self.before(self.conv(x.transpose(1, 2)).transpose(1, 2))
        if self.packed:
            frames = (lengths + 1) // 2
            packed = nn.utils.rnn.pack_padded_sequence(x, frames, batch_first=True, enforce_sorted=False)
            x, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        else:
            x, _ = self.rnn(x)
        return self.after(self.head(x)).log_softmax(-1).transpose(0, 1)


class Transformer(nn.Module):
    """torch's own encoder with its fast path: (batch, time, features) to log-probs (time, batch, classes)."""

    def __init__(self, masked: bool = True, **options: Any) -> None:
        super().__init__()
        options = {"batch_first": True, "dim_feedforward": 32, **options}
        nested = options["batch_first"] and not options.get("norm_first")  # else torch warns that it cannot
        layer = nn.TransformerEncoderLayer(16, 2, **options)
        self.features = nn.Linear(FEATURES, 16)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested)
        self.head = nn.Linear(16, CLASSES)
        self.masked = masked

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        mask = ~valid(x, lengths) if self.masked else None
        return self.head(self.encoder(self.features(x), src_key_padding_mask=mask)).log_softmax(-1).transpose(0, 1)


class Plain(nn.Module):
    """One layer of tanh, and whatever is done to it: (batch, time, features) to log-probs (time, batch, classes)."""

    def __init__(self, inside: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(FEATURES, 16), nn.Linear(16, CLASSES)
        self.inside = inside
        if isinstance(inside, nn.Module):
            self.add_module("inside", inside)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.head(self.inside(torch.tanh(self.first(x)), lengths)).log_softmax(-1).transpose(0, 1)


class Loop:
    """A user's training loop on random utterances; the longest one is the first."""

    def __init__(self, model: nn.Module, seed: int = 0, batch: int = 4, frames: int = 40, subsampling: int = 1) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.model, self.batch, self.frames, self.subsampling = model, batch, frames, subsampling
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        self.losses: list[float] = []
        self.equal = False

    def utterances(self) -> dict[str, Tensor]:
        lengths = torch.randint(self.frames // 2, self.frames + 1, (self.batch,), generator=self.generator)
        lengths[0] = self.frames
        lengths[:] = self.frames if self.equal else lengths
        x = torch.randn(self.batch, self.frames, FEATURES, generator=self.generator)
        x[~valid(x, lengths)] = 0
        return {"x": x, "lengths": lengths, "targets": self.targets(5)}

    def targets(self, labels: int) -> Tensor:
        return torch.randint(1, CLASSES, (self.batch, labels), generator=self.generator)

    def log_probs(self, given: dict[str, Tensor]) -> Tensor:
        """(time, batch, classes)."""
        made: Tensor = self.model(given["x"], given["lengths"])
        return made

    def loss(self) -> Tensor:
        given = self.utterances()
        frames = (given["lengths"] + self.subsampling - 1) // self.subsampling
        log_probs, labels = self.log_probs(given), given["targets"]
        return nn.functional.ctc_loss(
            log_probs, labels, frames, torch.full((self.batch,), labels.shape[1]), zero_infinity=True
        )

    def step(self, accumulate: int = 1) -> None:
        self.optimizer.zero_grad()
        for _ in range(accumulate):
            loss = self.loss()
            loss.backward()
            self.losses.append(float(loss.detach()))
        self.optimizer.step()

    def run(self, steps: int = 2) -> None:
        for _ in range(steps):
            self.step()
