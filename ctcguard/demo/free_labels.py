"""The report that ctcguard began with, in Flax and optax: https://github.com/sanchit-gandhi/seq2seq-speech/issues/28.

A label beyond the head has probability 1 in every frame of ``optax.ctc_loss``. It costs nothing, there are many ways to
align it, and a model that learns the other labels gets a total probability above 1: a loss below zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ctcguard.demo.broken import Caught, Expected, conclude
from ctcguard.demo.features import BANDS, Features, log_mel
from ctcguard.demo.plot import bars
from ctcguard.demo.recogniser import SYMBOLS
from ctcguard.demo.screen import Screen
from ctcguard.demo.speech import Utterance, spoken_digits
from ctcguard.demo.training import Records, Stage

if TYPE_CHECKING:
    from flax import nnx

TITLE = "free-labels: labels beyond the head cost nothing; the loss falls below zero"
REPORT = "https://github.com/sanchit-gandhi/seq2seq-speech/issues/28"
EXPECTED = Expected("CTC201", "label-beyond-head")
WIDTH = len(SYMBOLS) - 4
BATCH, CHANNELS, LEARNING_RATE = 16, 96, 1e-3
PLOT_WIDTH = 36

TrainStep = Callable[["nnx.Sequential", "nnx.Optimizer[Any]", "Batch"], Any]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is trained without the guard.

    Attributes
    ----------
    utterances, steps : int
        In all.
    shown_every : int
        Steps from one line of the curve to the next: whole rounds of the batches, so that the utterances are the same.
    """

    utterances: int
    steps: int
    shown_every: int


FULL = Size(utterances=96, steps=145, shown_every=18)
QUICK = Size(utterances=32, steps=57, shown_every=8)


class Batch(NamedTuple):
    """What `optax.ctc_loss` is made for: padded arrays, and paddings that are 1 where they were padded.

    Attributes
    ----------
    features : float32 array, (batch, frames, 40)
        Log-mel.
    frame_paddings : float32 array, (batch, frames)
        Of the features.
    labels : int32 array, (batch, labels)
        Indices in `SYMBOLS`.
    label_paddings : float32 array, (batch, labels)
        Of the labels.
    """

    features: Features
    frame_paddings: Features
    labels: npt.NDArray[np.int32]
    label_paddings: Features


def encode(text: str) -> npt.NDArray[np.int32]:
    """The labels of a transcript.

    Parameters
    ----------
    text : str
        Digit words with single spaces.

    Returns
    -------
    int32 array, (labels,)
        Indices in `SYMBOLS`; a space is ``|``.
    """
    return np.asarray([SYMBOLS.index(letter) for letter in text.replace(" ", "|")], np.int32)


def make_batches(utterances: Sequence[Utterance]) -> list[Batch]:
    """Features and labels, all batches of one shape, so that the step is compiled once.

    Parameters
    ----------
    utterances : sequence of Utterance
        A multiple of 16.

    Returns
    -------
    list of Batch
        16 utterances each, in the same order.
    """
    features = _padded([log_mel(utterance.waveform) for utterance in utterances])
    labels = _padded([encode(utterance.text) for utterance in utterances])
    whole = Batch(*features, *labels)
    starts = range(0, len(utterances), BATCH)
    return [Batch._make(array[start : start + BATCH] for array in whole) for start in starts]


def _padded(rows: Sequence[npt.NDArray[Any]]) -> tuple[npt.NDArray[Any], Features]:
    longest = max(map(len, rows))
    values = np.zeros((len(rows), longest, *rows[0].shape[1:]), rows[0].dtype)
    paddings = np.ones((len(rows), longest), np.float32)
    for number, row in enumerate(rows):
        values[number, : len(row)], paddings[number, : len(row)] = row, 0
    return values, paddings


def make_model() -> nnx.Sequential:
    """Two convolutions and a head of `WIDTH` classes: log-mel (batch, frames, 40) to logits (batch, frames, classes).

    Returns
    -------
    nnx.Sequential
        With the same weights each time.
    """
    from flax import nnx

    rngs = nnx.Rngs(0)
    return nnx.Sequential(
        nnx.Conv(BANDS, CHANNELS, kernel_size=(9,), rngs=rngs),
        nnx.gelu,
        nnx.Conv(CHANNELS, CHANNELS, kernel_size=(9,), rngs=rngs),
        nnx.gelu,
        nnx.Linear(CHANNELS, WIDTH, rngs=rngs),
    )


def make_train_step() -> TrainStep:
    """A training step as it stands in many programs.

    Returns
    -------
    callable
        Compiled; it takes model, optimizer and batch, changes the first two, and returns the losses (batch,) in nats.
    """
    import optax
    from flax import nnx

    @nnx.jit
    def train_step(model: nnx.Sequential, optimizer: nnx.Optimizer[Any], batch: Batch) -> Any:
        def mean_loss(model: nnx.Sequential) -> tuple[Any, Any]:
            logits = model(batch.features)
            losses = optax.ctc_loss(logits, batch.frame_paddings, batch.labels, batch.label_paddings)
            return losses.mean(), losses

        (_, losses), gradients = nnx.value_and_grad(mean_loss, has_aux=True)(model)
        optimizer.update(model, gradients)
        return losses

    return train_step


def train(train_step: TrainStep, model: nnx.Sequential, batches: Sequence[Batch], steps: int) -> Iterator[Features]:
    """A loop that goes round the batches.

    Parameters
    ----------
    train_step : callable
        From `make_train_step`, guarded or not.
    model : nnx.Sequential
        To be trained.
    batches : sequence of Batch
        Always in this order.
    steps : int
        How many to take.

    Yields
    ------
    float32 array, (batch,)
        The losses of each step in nats, measured before its update.
    """
    import optax
    from flax import nnx

    optimizer = nnx.Optimizer(model, optax.adamw(LEARNING_RATE), wrt=nnx.Param)
    for batch in islice(cycle(batches), steps):
        yield np.asarray(train_step(model, optimizer, batch))


def weights(model: nnx.Sequential) -> list[bytes]:
    """Every parameter array, bit by bit.

    Parameters
    ----------
    model : nnx.Sequential
        As it is now.

    Returns
    -------
    list of bytes
        One an array.
    """
    import jax
    from flax import nnx

    return [np.asarray(array).tobytes() for array in jax.tree.leaves(nnx.state(model, nnx.Param))]


@contextmanager
def _quickly_compiled() -> Iterator[None]:
    """Without most of XLA's optimisations: for so few steps they take more time than they save."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


@_quickly_compiled()
def run(stage: Stage) -> bool:
    """Train without the guard until the mean loss is negative; then with it, from the same weights, until it stops.

    Parameters
    ----------
    stage : Stage
        Where it plays.

    Returns
    -------
    bool
        Whether the loss fell below zero, and the guard stopped the same training at step 0 with the right verdict and
        untouched weights.
    """
    from ctcguard import guard_step

    size, screen = QUICK if stage.quick else FULL, stage.screen
    utterances = spoken_digits(size.utterances, seed=6)
    missing = SYMBOLS[WIDTH:]
    hit = sum(any(symbol in utterance.text for symbol in missing) for utterance in utterances)
    screen.row("report", REPORT)
    screen.row(
        "mistake",
        f"the head has {WIDTH} classes, the tokenizer {len(SYMBOLS)} symbols: no class for {', '.join(missing)} "
        f"({hit} of {len(utterances)} transcripts have one of them)",
    )
    screen.row("without", "optax says nothing, and such a label costs nothing: its probability is 1 in every frame")
    batches, model, train_step = make_batches(utterances), make_model(), make_train_step()
    initial = weights(model)
    with screen.busy("training without the guard"):
        curve = list(train(train_step, model, batches, size.steps))
    fell = _show_curve(screen, curve, size.shown_every)

    screen.row("guard", "one line: train_step = guard_step(train_step)")
    model = make_model()
    train_step = guarded = guard_step(train_step, run_dir=stage.directory)
    with Caught() as caught:
        list(train(train_step, model, batches, len(batches)))
    guarded.close()
    screen.row("sooner", "with vocabulary=tokenizer it is CTC101, from the head alone, whatever the batch holds")
    problems = (
        "" if fell else "without the guard the mean loss did not fall below zero",
        "" if caught.stopped else "the training was not stopped",
        "" if weights(model) == initial else "weights changed",
    )
    good = f"stopped before the first update; all {len(initial)} weight arrays are untouched, bit for bit"
    return conclude(screen, Records.of(stage.directory), EXPECTED, problems, good)


def _show_curve(screen: Screen, curve: Sequence[Features], every: int) -> bool:
    """One line for some of the steps; whether the mean loss of the last of them is below zero."""
    means, lowest = ([float(value(losses)) for losses in curve] for value in (np.mean, np.min))
    shown = range(0, len(curve), every)
    screen.row("unguarded", f"step   mean  lowest  loss of the same {BATCH} utterances, in nats")
    for step, bar in zip(shown, bars([means[step] for step in shown], PLOT_WIDTH), strict=True):
        style = "red" if means[step] < 0 else ""
        screen.row("", f"{step:>4} {means[step]:>6.1f} {lowest[step]:>7.1f}  {bar}", style)
    screen.row("below zero", f"one utterance {_first_below(lowest)}, the mean {_first_below(means)} (the report: 1.5k)")
    return means[shown[-1]] < 0


def _first_below(values: Sequence[float]) -> str:
    return next((f"at step {step}" for step, value in enumerate(values) if value < 0), "never")
