"""Targets and vocabularies that are right although unusual."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.clean.corpus import Family, Losses
from benchmarks.clean.task import Speech
from tests.clean.lab import Batch, Tensor

family = Family("labels")
STEPS = 60
Change = Callable[[Speech, Batch], Batch]


def training(
    change: Change, options: dict[str, Any] | None = None, classes: int = 12, blank: int = 0, **shape: int
) -> Callable[[int], Losses]:
    def train(seed: int) -> Losses:
        lab = Speech(seed, classes=classes, blank=blank)
        for batch in lab.batches(STEPS, **shape):
            loss = lab.loss(change(lab, batch), **(options or {})).mean()
            lab.update(loss)
            yield loss.item()

    return train


def same(lab: Speech, batch: Batch) -> Batch:
    return batch


# --------------------------------------------------------------------------------------------------- silence, few texts


def silent(share: float) -> Change:
    """That share of the clips holds background only, and has no label."""

    def change(lab: Speech, batch: Batch) -> Batch:
        counts = batch.target_lengths.clone()
        counts[torch.rand(len(counts), generator=lab.generator) < share] = 0
        spoken = lab.said(batch.targets, counts, frames=len(batch.features))
        # A silent clip lasts as long as it had lasted with its words.
        return dataclasses.replace(spoken, input_lengths=torch.maximum(spoken.input_lengths, batch.input_lengths))

    return change


def wake_word(share: float) -> Change:
    """One phrase, said at many speeds; that share of the clips is background."""

    def change(lab: Speech, batch: Batch) -> Batch:
        phrase = torch.tensor([3, 7, 7, 2]).repeat(len(batch.targets), 1)
        counts = torch.full((len(phrase),), 4)
        counts[torch.rand(len(counts), generator=lab.generator) < share] = 0
        return lab.said(phrase, counts, frames=24)

    return change


def commands(lab: Speech, batch: Batch) -> Batch:
    """One of four words a clip."""
    words = torch.tensor([[1, 2, 3, 0], [4, 4, 5, 0], [6, 0, 0, 0], [7, 8, 9, 10]])
    drawn = lab.whole(0, 3, len(batch.targets))
    return lab.said(words[drawn], torch.tensor([3, 3, 1, 4])[drawn])


for reduction in ("mean", "sum", "none"):
    family.add(f"a tenth of the clips is silent, {reduction}", training(silent(0.1), {"reduction": reduction}))
family.add("a third of the clips is silent", training(silent(0.33), size=8))
family.add("half of the clips is background, batches of 8", training(silent(0.5), size=8), seeds=4)
family.add("half of the clips is background, batches of 2", training(silent(0.5), size=2))
family.add("nine clips of ten are background, batches of 16", training(silent(0.9), size=16))
family.add("one wake word, half of the clips is background", training(wake_word(0.5), size=4), seeds=4)
family.add("one wake word, a quarter of the clips is background", training(wake_word(0.25), size=4))
family.add("four commands", training(commands))
family.add("four commands, one a batch", training(commands, size=1))


@family("one utterance at three speeds, to see that it can be learned")
def one_utterance(seed: int) -> Losses:
    """The usual test before a long training, with the augmentation left on."""
    lab = Speech(seed)
    clip = lab.batch(size=1)
    for _ in range(STEPS):
        speed = int(lab.whole(1, 3))
        batch = dataclasses.replace(
            clip, features=clip.features.repeat_interleave(speed, 0), input_lengths=speed * clip.input_lengths
        )
        loss = lab.loss(batch)
        lab.update(loss)
        yield loss.item()


# -------------------------------------------------------------------------------------------------- codes of one length


def codes(length: int, zeros: int, size: int = 8) -> Callable[[int], Losses]:
    """Captchas, meter readings, prices: digits 1 to 10, of which 10 is zero; the last ``zeros`` of a code are that."""

    def train(seed: int) -> Losses:
        lab = Speech(seed, classes=11)
        for _ in range(STEPS):
            digits = lab.whole(1, 10, size, length)
            digits[:, length - zeros :] = 10
            loss = lab.loss(lab.said(digits, torch.full((size,), length)))
            lab.update(loss)
            yield loss.item()

    return train


DIGITS = ["<blank>", *"1234567890"]
family.add("captchas of four digits", codes(4, 0))
family.add("captchas of six digits, batches of 2", codes(6, 0, size=2))
for zeros, what in ((1, "tens"), (2, "hundreds"), (3, "thousands")):
    family.add(f"prices of six digits in {what}", codes(6, zeros))
    family.add(f"prices of six digits in {what}, batches of 64", codes(6, zeros, size=64), seeds=2)
    family.add(f"prices of six digits in {what}, with a vocabulary", codes(6, zeros), vocabulary=DIGITS)


# ---------------------------------------------------------------------------------------------------- how it is written


def beyond(value: float) -> Change:
    """Something else behind the last label of each utterance, and two columns more of it."""

    def change(lab: Speech, batch: Batch) -> Batch:
        wide = torch.nn.functional.pad(batch.targets, (0, 2))
        unused = torch.arange(wide.shape[1]) >= batch.target_lengths[:, None]
        return dataclasses.replace(batch, targets=wide.masked_fill(unused, value))

    return change


def of_dtype(dtype: torch.dtype, value: float = 0) -> Change:
    return lambda lab, batch: beyond(value)(lab, dataclasses.replace(batch, targets=batch.targets.to(dtype)))


def concatenated(lab: Speech, batch: Batch) -> Batch:
    rows = [row[:n] for row, n in zip(batch.targets, batch.target_lengths.tolist(), strict=True)]
    return dataclasses.replace(batch, targets=torch.cat(rows))


for value in (-1, -100, 9999, 0, 12):
    family.add(f"{value} beyond target_lengths", training(beyond(value)), seeds=2)
family.add("NaN beyond target_lengths", training(of_dtype(torch.float32, float("nan"))), seeds=2)
for dtype in (torch.int32, torch.float32, torch.float64, torch.uint8):
    family.add(f"{str(dtype).removeprefix('torch.')} targets", training(of_dtype(dtype)), seeds=2)
family.add("concatenated", training(concatenated), seeds=2)
family.add("concatenated, some clips silent", training(lambda lab, batch: concatenated(lab, silent(0.2)(lab, batch))))


def repeating(lab: Speech, batch: Batch) -> Batch:
    """Double letters everywhere: each label is said twice."""
    doubled = batch.targets.repeat_interleave(2, dim=1)
    return lab.said(doubled, 2 * batch.target_lengths)


family.add("every letter twice", training(repeating, labels=3))


# --------------------------------------------------------------------------------------------------------- vocabularies

LETTERS = [*"abcdefghijk"]
VOCABULARIES: dict[str, tuple[int, int, Any]] = {
    "blank last, as NeMo has it": (12, 11, LETTERS),
    "blank last, by the number of symbols": (12, 11, 11),
    "blank in the middle": (12, 5, [*LETTERS[:5], "<blank>", *LETTERS[5:]]),
    "padded to a multiple of 8": (16, 0, ["<pad>", *LETTERS]),
    "two special symbols beyond the head": (12, 0, ["<pad>", *LETTERS, "<s>", "</s>"]),
    "<s>, </s> and <unk> that never occur": (15, 0, ["<pad>", *LETTERS, "<s>", "</s>", "<unk>"]),
    "word delimiter and word pieces": (12, 0, ["<pad>", "|", *(f"▁{letter}" for letter in LETTERS[:10])]),
    "capital letters": (12, 0, ["<blank>", *"ABCDEFGHIJK"]),
    "icefall: <blk>, <sos/eos>, <unk>": (14, 0, ["<blk>", "<sos/eos>", "<unk>", *LETTERS]),
    "ESPnet: <blank>, <unk> first, <sos/eos> last": (14, 0, ["<blank>", "<unk>", *LETTERS, "<sos/eos>"]),
    "fairseq: <s> is the blank": (15, 0, ["<s>", "<pad>", "</s>", "<unk>", *LETTERS]),
    "SentencePiece: <unk>, <s>, </s> first, the blank beyond": (15, 14, ["<unk>", "<s>", "</s>", *LETTERS]),
    "Keras: [UNK] first, the blank beyond": (13, 12, ["[UNK]", *LETTERS]),
    "PaddleOCR: blank first, the space last": (13, 0, ["blank", *LETTERS, " "]),
    "[CLS], [SEP] and [MASK] beyond the head": (12, 0, ["[PAD]", *LETTERS, "[CLS]", "[SEP]", "[MASK]"]),
    "a hyphen that is said, the blank beyond": (12, 11, [*LETTERS[:10], "-"]),
    "digits, the blank beyond": (12, 11, [*"0123456789", "."]),
    "an apostrophe first, the blank beyond": (12, 11, ["'", *LETTERS[:10]]),
}


def used_by(vocabulary: Any, classes: int, blank: int) -> Change:
    """Labels of ordinary symbols only, whatever their indices are."""
    names = vocabulary if isinstance(vocabulary, list) else [str(i) for i in range(vocabulary)]
    special = {"<", "["}
    ids = [i for i, name in enumerate(names[:classes]) if i != blank and (len(name) == 1 or name[0] not in special)]
    ids = [i for i in ids if names[i] != "blank"]

    def change(lab: Speech, batch: Batch) -> Batch:
        return lab.said(torch.tensor(ids)[batch.targets % len(ids)], batch.target_lengths)

    return change


for name, (classes, blank, vocabulary) in VOCABULARIES.items():
    change = used_by(vocabulary, classes, blank)
    family.add(name, training(change, classes=classes, blank=blank), seeds=2, vocabulary=vocabulary)


def rarely_unknown(lab: Speech, batch: Batch) -> Batch:
    """Seven labels in a hundred are <unk>, the last class."""
    unknown = torch.rand(batch.targets.shape, generator=lab.generator) < 0.07
    return lab.said(batch.targets.clamp(max=10).masked_fill(unknown, 11), batch.target_lengths)


UNKNOWN = ["<blank>", *LETTERS[:10], "<unk>"]
family.add("some unknown symbols", training(rarely_unknown), vocabulary=UNKNOWN)
family.add("some unknown symbols, batches of 80", training(rarely_unknown, size=80), seeds=2, vocabulary=UNKNOWN)


def few_of_many(lab: Speech, batch: Batch) -> Batch:
    """Ten classes of 200 occur: a multilingual head on one language."""
    return lab.said(1 + batch.targets % 10, batch.target_lengths)


family.add("ten classes of 200 are used", training(few_of_many, classes=200), seeds=2)


def one_frequent(lab: Speech, batch: Batch) -> Batch:
    """Two labels of three are the same: a space between letters."""
    often: Tensor = torch.rand(batch.targets.shape, generator=lab.generator) < 0.66
    return lab.said(batch.targets.masked_fill(often, 1), batch.target_lengths)


family.add("one label much more frequent than all others", training(one_frequent, labels=8), seeds=2)
