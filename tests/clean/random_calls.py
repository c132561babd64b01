"""Random right calls of ``torch.nn.functional.ctc_loss``, of any shape, precision and certainty."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import torch

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


@st.composite
def utterances(draw: st.DrawFn, classes: int, blank: int, tight: bool) -> tuple[list[int], int]:
    """Labels and a number of frames that is enough for them, exactly enough if ``tight``."""
    labels = st.sampled_from([label for label in range(classes) if label != blank])
    target = draw(st.lists(draw(st.sampled_from([labels, st.just(draw(labels))])), max_size=12))
    needed = max(1, len(target) + sum(a == b for a, b in itertools.pairwise(target)))
    return target, needed + (0 if tight else draw(st.integers(0, 30)))


def looks_padded(targets: list[list[int]]) -> bool:
    """Targets of one width that end, all but one of them, in a run of one label: padding, to all appearances."""
    if len(targets) < 2 or len({len(row) for row in targets}) > 1 or len(targets[0]) < 4:
        return False
    runs = Counter(row[-1] for row in targets if row[-1] == row[-2])
    return max(runs.values(), default=0) >= len(targets) - 1


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """What a right call is made of."""
    classes = draw(st.sampled_from([2, 3, 5, 12, 33, 400]))
    blank = draw(st.sampled_from([0, classes - 1, classes // 2]))
    tight = draw(st.booleans())
    batches = st.lists(utterances(classes, blank, tight), min_size=1, max_size=3)
    batch = draw(batches.filter(lambda batch: not looks_padded([target for target, _ in batch])))
    return {
        "batch": batch,
        "classes": classes,
        "blank": blank,
        "spare_frames": draw(st.sampled_from([0, 0, 1, 40])),
        "shape": draw(st.sampled_from(["flat", "noise", "certain", "undecided", "far off", "mixed"])),
        "scale": draw(st.sampled_from([1e-3, 0.3, 1.0, 5.0, 30.0, 200.0])),
        "softmax": draw(st.sampled_from([*DTYPES])),
        "scores": draw(st.sampled_from(["float32", "float32", "float64", "same"])),
        "targets": draw(st.sampled_from(["padded", "padded with -1", "padded with 9999", "concatenated", "float"])),
        "lengths": draw(st.sampled_from(["int64", "int32", "list"])),
        "zero_infinity": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**16)),
    }


def alignment(target: list[int], frames: int, blank: int, generator: torch.Generator) -> list[int]:
    """A random frame-by-frame path that collapses to the target."""
    path: list[int] = []
    for i, label in enumerate(target):
        path += [blank] if i and target[i - 1] == label else []
        path.append(label)
    while len(path) < frames:
        at = int(torch.randint(0, len(path) + 1, (), generator=generator))
        near = [path[min(at, len(path) - 1)]] if path else []
        apart = at in (0, len(path)) or path[at - 1] != path[at] or path[at] == blank
        path.insert(at, [*near, *([blank] if apart else []), *([blank] if not near else [])][-1])
    return path


def logits_of(kind: dict[str, Any], frames: int, generator: torch.Generator) -> torch.Tensor:
    """Scores before the softmax, (time, batch, classes)."""
    size, classes, scale = len(kind["batch"]), kind["classes"], kind["scale"]
    noise = torch.randn(frames, size, classes, generator=generator, dtype=torch.float64)
    if kind["shape"] in ("flat", "noise"):
        return noise * scale * (1e-3 if kind["shape"] == "flat" else 1)
    logits = 0.1 * noise
    for i, (target, valid) in enumerate(kind["batch"]):
        if kind["shape"] == "mixed" and i % 2:
            continue
        path = alignment(target, valid, kind["blank"], generator)
        if kind["shape"] == "far off":
            path = path[::-1]
        for frame, label in enumerate(path):
            logits[frame, i, label] += 10 * scale
            if kind["shape"] != "certain" and frame + 1 < len(path):
                logits[frame, i, path[frame + 1]] = logits[frame, i, label]
    return logits


def made(kind: dict[str, Any]) -> dict[str, Any]:
    """The call itself, its losses computed by torch."""
    generator = torch.Generator().manual_seed(kind["seed"])
    frames = max(valid for _, valid in kind["batch"]) + kind["spare_frames"]
    softmax = DTYPES[kind["softmax"]]
    log_probs = logits_of(kind, frames, generator).to(softmax).log_softmax(-1)
    scores = log_probs if kind["scores"] == "same" else log_probs.to(DTYPES[kind["scores"]])
    for i, (_, valid) in enumerate(kind["batch"]):
        scores[valid:, i] = 7.0  # garbage, and far from a distribution
    rows = [torch.tensor(target, dtype=torch.long) for target, _ in kind["batch"]]
    fill = {"padded with -1": -1, "padded with 9999": 9999}.get(kind["targets"], 0)
    targets = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=fill)
    if kind["targets"] == "concatenated":
        targets = torch.cat(rows)
    lengths = [[valid for _, valid in kind["batch"]], [len(row) for row in rows]]
    if kind["lengths"] != "list":
        lengths = [torch.tensor(values, dtype=getattr(torch, kind["lengths"])) for values in lengths]  # type: ignore[misc]
    known = {
        "targets": targets.float() if kind["targets"] == "float" else targets,
        "input_lengths": lengths[0],
        "target_lengths": lengths[1],
        "blank": kind["blank"],
        "zero_infinity": kind["zero_infinity"],
    }
    exact = scores if scores.dtype in (torch.float32, torch.float64) else scores.float()
    losses = torch.nn.functional.ctc_loss(exact, reduction="none", **known)
    if kind["batch_first"]:
        scores = scores.transpose(0, 1)
    return {
        "log_probs": scores, "losses": losses, "batch_first": kind["batch_first"],
        "framework": "torch", "source": "torch.ctc_loss", **known,
    }  # fmt: skip
