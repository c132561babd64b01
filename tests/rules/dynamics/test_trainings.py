"""Real trainings, some hundred steps each, and a guard with little patience. Sick ones have twins that look alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ctcguard.finding import Finding
from ctcguard.guard import Guard
from tests.rules.dynamics.runs import (
    DYNAMICS,
    PATIENCE,
    Batch,
    Language,
    Recogniser,
    ctc,
    guarded,
    heard_right,
    loss_of,
    roots,
    steps,
    train,
)

LANGUAGE = Language()
NO_GRACE = {name: {"grace_steps": 0, "calls": 32} for name in DYNAMICS}
Run = Callable[[], None]
Prepare = Callable[[], tuple[Run, Callable[[], bool]]]
"""Trains what must be there before, and gives the run that is guarded and a test of whether it was healthy."""


def adam(model: torch.nn.Module, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr)


def without_signal(batches: list[Batch]) -> list[Batch]:
    return [(torch.zeros_like(features), *rest) for features, *rest in batches]


def with_other_transcripts(batches: list[Batch]) -> list[Batch]:
    """Every transcript belongs to another utterance; those too short for any are left out."""
    clips, texts = [], []
    for features, targets, frames, labels in batches:
        clips += [features[:length, i] for i, length in enumerate(frames) if length >= 12]
        texts += [targets[i, :length] for i, length in enumerate(labels)]
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(7))
    pairs = [(clip, texts[i]) for clip, i in zip(clips, order, strict=False)]
    return [together(pairs[first : first + 4]) for first in range(0, len(pairs) - 3, 4)]


def together(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> Batch:
    clips, texts = ([pair[side] for pair in pairs] for side in (0, 1))
    lengths = [torch.tensor([len(row) for row in rows]) for rows in (clips, texts)]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(clips), pad(texts, batch_first=True), lengths[0], lengths[1]


# ------------------------------------------------------------------------------------------------------------- healthy


def learning() -> tuple[Run, Callable[[], bool]]:
    batches, model = LANGUAGE.batches(60), Recogniser()
    return lambda: train(model, adam(model, 1e-2), batches, 250), lambda: heard_right(model, batches[0]) > 0.9


def converged() -> tuple[Run, Callable[[], bool]]:
    """Low and flat from the first call on."""
    batches, model = LANGUAGE.batches(30), Recogniser()
    train(model, adam(model, 1e-2), batches, 200)
    return lambda: train(model, adam(model, 1e-5), batches, 160), lambda: heard_right(model, batches[0]) > 0.8


def sparse_and_right() -> tuple[Run, Callable[[], bool]]:
    """97% blanks, and every transcript right."""
    batches = Language(labels=(1, 1), silence=(20, 40), frames=(3, 4)).batches(30, noise=0.1)
    model = Recogniser()
    train(model, adam(model, 1e-2), LANGUAGE.batches(30), 120)
    train(model, adam(model, 5e-3), batches, 150)

    def right() -> bool:
        blanks = (model(batches[0][0]).argmax(-1) == 0).float().mean()
        return bool(blanks > 0.95) and heard_right(model, batches[0]) > 0.9

    return lambda: train(model, adam(model, 1e-4), batches, 160), right


def overfitting_one_batch() -> tuple[Run, Callable[[], bool]]:
    batches, model = LANGUAGE.batches(1), Recogniser()
    return lambda: train(model, adam(model, 1e-2), batches, 250), lambda: heard_right(model, batches[0]) == 1


def frozen_encoder() -> tuple[Run, Callable[[], bool]]:
    """Only the head learns, slowly: blanks nearly everywhere, and a loss that falls."""
    batches, model = LANGUAGE.batches(60), Recogniser()
    model.encoder.requires_grad_(False)
    return lambda: train(model, adam(model, 5e-3), batches, 300), lambda: loss_of(model, batches[0]) < 3


def background_clips() -> tuple[Run, Callable[[], bool]]:
    """More than half of the clips hold nothing."""
    batches, model = LANGUAGE.batches(40, size=12, empty=0.6), Recogniser()
    return lambda: train(model, adam(model, 1e-2), batches, 250), lambda: heard_right(model, batches[0]) > 0.7


def two_languages_in_turns() -> tuple[Run, Callable[[], bool]]:
    first, second = Language(seed=1).batches(20), Language(seed=2).batches(20)
    batches, model = [*first, *second, *first, *second], Recogniser()
    return lambda: train(model, adam(model, 1e-2), batches, 320), lambda: heard_right(model, batches[0]) > 0.7


def another_language_after_the_first() -> tuple[Run, Callable[[], bool]]:
    """The loss jumps far out of its range, and comes back."""
    first, second, model = Language(seed=1).batches(40), Language(seed=2).batches(40), Recogniser()
    optimizer = adam(model, 1e-2)
    train(model, optimizer, first, 150)

    def run() -> None:
        train(model, optimizer, first, 120)
        train(model, optimizer, second, 200)

    return run, lambda: heard_right(model, second[0]) > 0.7


def restarts() -> tuple[Run, Callable[[], bool]]:
    """The learning rate begins anew four times, twenty times as high as it ended."""
    batches, model = LANGUAGE.batches(60), Recogniser()
    optimizer = adam(model, 2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=80, eta_min=1e-3)

    def run() -> None:
        for _ in steps(model, optimizer, batches, 320):
            schedule.step()

    return run, lambda: heard_right(model, batches[0]) > 0.9


def curriculum() -> tuple[Run, Callable[[], bool]]:
    batches = [batch for size in range(1, 9) for batch in Language(labels=(size, size + 1)).batches(32)]
    model = Recogniser()
    return lambda: train(model, adam(model, 1e-2), batches, len(batches)), lambda: heard_right(model, batches[-1]) > 0.7


def accumulation() -> tuple[Run, Callable[[], bool]]:
    """Four calls of two utterances a step."""
    batches, model = LANGUAGE.batches(200, size=2), Recogniser()
    optimizer = adam(model, 1e-2)

    def run() -> None:
        for first in range(0, 600, 4):
            optimizer.zero_grad()
            for batch in range(first, first + 4):
                (ctc(model, batches[batch % 200]) / 4).backward()
            optimizer.step()

    return run, lambda: heard_right(model, LANGUAGE.batches(1)[0]) > 0.7


HEALTHY: dict[str, tuple[Prepare, dict[str, dict[str, float]]]] = {
    "learning": (learning, PATIENCE),
    "converged": (converged, NO_GRACE),
    "sparse and right": (sparse_and_right, NO_GRACE),
    "overfitting one batch": (overfitting_one_batch, PATIENCE),
    "frozen encoder": (frozen_encoder, PATIENCE),
    "background clips": (background_clips, PATIENCE),
    "two languages in turns": (two_languages_in_turns, PATIENCE),
    "another language after the first": (another_language_after_the_first, NO_GRACE),
    "restarts of the learning rate": (restarts, PATIENCE),
    "from short to long": (curriculum, PATIENCE),
    "gradient accumulation": (accumulation, PATIENCE),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_healthy(case: str) -> None:
    prepare, patience = HEALTHY[case]
    run, is_healthy = prepare()
    guard = guarded(run, patience)
    assert is_healthy()
    assert roots(guard) == [], [finding.message for finding in guard.findings]


def test_the_plateau_before_it_learns() -> None:
    """All blanks at the loss of a constant output: only a hasty guard with a coarse eye is wrong here."""
    batches, model = Language(silence=(2, 4)).batches(40), Recogniser()
    optimizer = adam(model, 2e-3)
    hasty = {"blank-collapse": {"grace_steps": 0, "calls": 64, "fall": 0.2}}
    assert roots(guarded(lambda: train(model, optimizer, batches, 160), hasty)) == [("CTC701", "constant-output")]
    assert heard_right(model, batches[0]) == 0
    assert roots(guarded(lambda: train(model, optimizer, batches, 400))) == []
    assert heard_right(model, batches[0]) > 0.5


# ---------------------------------------------------------------------------------------------------------------- sick


def stuck(batches: list[Batch], lr: float = 1e-2, count: int = 200, **settings: Any) -> Guard:
    model = Recogniser()
    return guarded(lambda: train(model, adam(model, lr), batches, count), **settings)


def last_of(guard: Guard, code: str) -> Finding:
    return [finding for finding in guard.findings if finding.code == code][-1]


def test_features_that_say_nothing() -> None:
    guard = stuck(without_signal(LANGUAGE.batches(40, size=16)))
    assert roots(guard) == [("CTC701", "constant-output")]
    # The theory: no output that never changes is better.
    assert last_of(guard, "CTC701").readings["constant_ratio"] == pytest.approx(1, abs=0.05)


def test_labels_that_are_not_equally_frequent() -> None:
    """What can be reached is lower in the proportion of their entropy to ln 8."""
    weights = np.arange(1, 9) ** -1.2
    shares = weights / weights.sum()
    guard = stuck(without_signal(Language(skew=1.2).batches(40, size=16)))
    assert roots(guard) == [("CTC701", "constant-output")]
    entropy = -(shares * np.log(shares)).sum() / np.log(8)
    assert last_of(guard, "CTC701").readings["constant_ratio"] == pytest.approx(entropy, abs=0.1)


def test_transcripts_of_other_utterances() -> None:
    batches = with_other_transcripts(Language(labels=(1, 6), silence=(0, 6)).batches(280, size=4))
    patience = {"blank-collapse": {"grace_steps": 250, "calls": 192, "fall": 0.1}}
    guard = stuck(batches, 1e-2, 300, patience=patience)
    assert ("CTC701", "unpaired") in roots(guard)
    assert {code for code, _ in roots(guard)} == {"CTC701"}


def test_little_room_for_the_labels() -> None:
    tight = Language(labels=(8, 12), frames=(1, 3), silence=(0, 0))
    assert roots(stuck(without_signal(tight.batches(40, size=16)))) == [("CTC701", "few-frames")]


def test_hidden_units_that_died() -> None:
    """What one step far too large leaves behind: no input moves the output any more."""
    batches, model = LANGUAGE.batches(40, size=16), Recogniser()
    with torch.no_grad():
        model.encoder[0].bias -= 1000
    guard = guarded(lambda: train(model, adam(model, 3e-2), batches, 200))
    assert roots(guard) == [("CTC701", "constant-output")]


def test_the_most_frequent_symbol_where_nearly_every_frame_is_a_label() -> None:
    dense = Language(labels=(8, 12), frames=(1, 1), silence=(0, 0), skew=1.5)
    guard = stuck(without_signal(dense.batches(40, size=16)), vocabulary=["<blank>", *"etaoinsr"])
    assert roots(guard) == [("CTC702", "few-frames")]
    assert "symbol 1 'e' won 100.0%" in last_of(guard, "CTC702").message


def test_a_model_that_was_made_for_another_blank() -> None:
    """It says class 8 where the loss takes 0 for the blank; a tiny learning rate leaves it so."""
    model, batches = Recogniser(), LANGUAGE.batches(40)
    with torch.no_grad():
        model.head.bias[8] = 12
    names = ["a", "b", "c", "d", "e", "f", "g", "h", "<pad>"]
    optimizer = adam(model, 1e-6)
    guard = guarded(lambda: train(model, optimizer, batches, 160), vocabulary=names, ignore=("CTC102",))
    assert roots(guard) == [("CTC702", "blank-index")]
    evidence = last_of(guard, "CTC702").evidence
    assert evidence == "8 '<pad>' is the blank of the list, but the loss takes 0 'a' for it"


@pytest.mark.parametrize("lr", [0.0, 1e-8])
def test_a_head_at_rest(lr: float) -> None:
    guard = stuck(LANGUAGE.batches(40), lr, 160)
    assert roots(guard) == [("CTC703", "weights-at-rest")]
    assert last_of(guard, "CTC703").readings["uniform_ratio"] == pytest.approx(1, abs=0.1)


def test_as_many_labels_as_frames_and_no_signal() -> None:
    """There a uniform output is the best of all that never change, but for some per cent."""
    full = Language(labels=(8, 12), frames=(1, 1), silence=(0, 0))
    batches = [(torch.zeros_like(x)[1:], y, frames - 1, labels) for x, y, frames, labels in full.batches(40, size=16)]
    patience = PATIENCE | {"no-progress": {"grace_steps": 100, "calls": 64, "margin": 0.05}}
    assert ("CTC703", "no-signal") in roots(stuck(batches, 1e-3, patience=patience))


def test_scores_driven_far_out() -> None:
    model, batches = Recogniser(), LANGUAGE.batches(40)
    with torch.no_grad():
        model.head.weight *= 100
    assert roots(guarded(lambda: train(model, adam(model, 1e-5), batches, 160))) == [("CTC703", "far-out")]


def test_a_learning_rate_that_explodes() -> None:
    """What was learned is lost at step 128, and the collapse that follows is no news."""
    model, batches = Recogniser(), LANGUAGE.batches(40)
    optimizer = adam(model, 1e-2)
    train(model, optimizer, batches, 120)
    assert heard_right(model, batches[0]) > 0.7

    def run() -> None:
        for step in steps(model, optimizer, batches, 320):
            if step == 128:
                optimizer.param_groups[0]["lr"] = 3.0

    guard = guarded(run)
    assert roots(guard) == [("CTC704", "diverged")]
    assert 128 <= last_of(guard, "CTC704").readings["since_step"] <= 140
    assert heard_right(model, batches[0]) < 0.3
