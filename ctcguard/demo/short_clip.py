"""One clip too short for its transcript, hidden by ``zero_infinity``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ctcguard.demo.broken import Caught, Expected, conclude
from ctcguard.demo.recogniser import Collator, Example, examples, make_model, make_processor
from ctcguard.demo.speech import SAMPLING_RATE, spoken_digits
from ctcguard.demo.training import Records, Stage, make_trainer

if TYPE_CHECKING:
    import torch
    from transformers import Trainer, Wav2Vec2BertProcessor

TITLE = "short-clip: a clip too short for its transcript, hidden by zero_infinity"
EXPECTED_CODE = "CTC301"
UTTERANCES, BATCH, SHORT_S, POSITION = 48, 8, 0.25, 1


class WatchedCollator(Collator):
    """Remembers in which batch the clip came, to compare the guard's answer with.

    Parameters
    ----------
    processor : Wav2Vec2BertProcessor
        As for `Collator`.
    clip : Example
        The one to look for.
    """

    def __init__(self, processor: Wav2Vec2BertProcessor, clip: Example) -> None:
        super().__init__(processor)
        self._clip = clip
        self._batches = 0
        self.seen_in: list[int] = []

    def __call__(self, batch: Sequence[Example]) -> dict[str, torch.Tensor]:
        """The batch; its number is kept if the clip is in it."""
        if any(example is self._clip for example in batch):
            self.seen_in.append(self._batches)
        self._batches += 1
        return super().__call__(batch)


def run(stage: Stage) -> bool:
    """Train one epoch: with ``zero_infinity`` nothing breaks, so the guard warns and the training goes on.

    Parameters
    ----------
    stage : Stage
        Where it plays.

    Returns
    -------
    bool
        Whether the guard warned at the step in which the clip came, named it, and let the training end.
    """
    from transformers import set_seed

    from ctcguard import CTCGuard

    set_seed(0)
    processor = make_processor()
    utterances = spoken_digits(UTTERANCES, seed=5)
    cut = replace(utterances[POSITION], waveform=utterances[POSITION].waveform[: int(SHORT_S * SAMPLING_RATE)])
    utterances[POSITION] = cut
    data = examples(utterances, processor)
    stage.screen.row("mistake", f"one of {UTTERANCES} clips is cut to {SHORT_S} s; its transcript is {cut.text!r}")
    stage.screen.row("without", "config.ctc_zero_infinity turns its infinite loss into a silent 0")
    stage.screen.row("guard", "one line: trainer.add_callback(CTCGuard())")
    collator = WatchedCollator(processor, data[POSITION])
    model = make_model(processor, ctc_zero_infinity=True)
    trainer = make_trainer(
        model,
        processor,
        data,
        stage.directory,
        steps=UTTERANCES // BATCH,
        collator=collator,
        per_device_train_batch_size=BATCH,
    )
    trainer.add_callback(CTCGuard())
    with Caught() as caught:
        trainer.train()
    problem = "a warning must not stop training" if caught.stopped else ""
    return _conclude(stage, trainer, collator.seen_in[0], cut.text, problem)


def _conclude(stage: Stage, trainer: Trainer, step: int, text: str, problem: str) -> bool:
    records = Records.of(stage.directory / "ctcguard")
    roots = [finding for finding in records.findings if finding["code"] == EXPECTED_CODE]
    named = [item["text"] for finding in roots for item in finding["utterances"]]
    logged = trainer.state.log_history[step]
    stage.screen.row("meanwhile", f"the Trainer's log at step {step}: loss {logged['loss']:.2f}, nothing to see")
    problems = (problem, "" if named == [text] else f"the utterance named must be {text!r}, not {named}")
    ended = f"a warning: training went on to step {trainer.state.global_step}"
    good = f"reported at step {step}, the first with that clip; {ended}"
    return conclude(stage.screen, records, Expected(EXPECTED_CODE, "too-short", step), problems, good)
