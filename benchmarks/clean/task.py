"""Two tasks that can be learned in a hundred steps, made from a seed: a kind of speech, and a kind of print."""

from __future__ import annotations

import dataclasses
import itertools

import torch

from tests.clean.lab import Batch, Lab, Tensor

NOISE = 0.3


class Speech(Lab):
    """The lab of the tests, with something to hear: every label sounds for 2 to 4 frames, with silence around it.

    Features are (time, batch, 8): the sound of a label is a fixed direction. Equal neighbours have silence between
    them, so that every utterance has more frames than it needs.
    """

    def __init__(self, seed: int, classes: int = 12, blank: int = 0, hidden: int = 32, lr: float = 1e-2) -> None:
        super().__init__(seed, classes, blank, hidden, lr)
        self.sounds = 2 * torch.nn.functional.normalize(torch.randn(classes, 8, generator=self.generator), dim=1)
        self.sounds[blank] = 0

    def batch(self, size: int = 4, frames: int = 0, labels: int = 5) -> Batch:
        """Utterances of 1 to ``labels`` labels, padded to the longest, or to ``frames`` where that is more."""
        counts = self.whole(1, labels, size)
        return self.said(self.labels(size, labels), counts, frames)

    def said(self, targets: Tensor, counts: Tensor, frames: int = 0) -> Batch:
        """Utterances of given labels, of which the first ``counts`` are said."""
        spoken = [self.utterance(row[:n].tolist()) for row, n in zip(targets, counts.tolist(), strict=True)]
        lengths = torch.tensor([len(sound) for sound in spoken])
        features = torch.nn.utils.rnn.pad_sequence(spoken)
        if frames > len(features):
            features = torch.nn.functional.pad(features, (0, 0, 0, 0, 0, frames - len(features)))
        return Batch(features, targets, lengths, counts)

    def utterance(self, labels: list[int]) -> Tensor:
        """The sound of some labels, (time, 8)."""
        frames = [self.blank] * int(self.whole(1, 2))
        for before, label in itertools.pairwise([self.blank, *labels]):
            frames += [self.blank] * (int(self.whole(0, 1)) + (before == label))
            frames += [label] * int(self.whole(2, 4))
        clean = self.sounds[[*frames, self.blank]]
        return clean + NOISE * torch.randn(clean.shape, generator=self.generator)


GLYPH = 8


class Print(Speech):
    """Lines of print, 8 pixels high: a glyph is 5 columns wide, and 1 or 2 white columns follow it.

    A page is (time, batch, 8) as above, so that a column is a frame; white is 1 and ink is 0. ``width`` columns for
    every line, whatever is on it: the rest stays white, and the lengths are the full width, as OCR trainers have it.
    """

    def __init__(self, seed: int, classes: int = 12, blank: int = 0, hidden: int = 32, lr: float = 1e-2) -> None:
        super().__init__(seed, classes, blank, hidden, lr)
        self.glyphs = (torch.rand(classes, 5, GLYPH, generator=self.generator) > 0.4).float()

    def utterance(self, labels: list[int]) -> Tensor:
        """The columns of some glyphs, (time, 8)."""
        white = torch.ones(1, GLYPH)
        columns = [white]
        for label in labels:
            columns += [self.glyphs[label], white.repeat(int(self.whole(1, 2)), 1)]
        page = torch.cat(columns)
        return page + 0.05 * torch.randn(page.shape, generator=self.generator)

    def page(self, size: int = 4, width: int = 48, labels: int = 6) -> Batch:
        """Lines of one width with full lengths."""
        batch = self.batch(size, 0, labels)
        lines = torch.ones(width, size, GLYPH)
        for i, n in enumerate(batch.input_lengths.tolist()):
            lines[:n, i] = batch.features[:n, i]
        return dataclasses.replace(batch, features=lines, input_lengths=torch.full((size,), width))
