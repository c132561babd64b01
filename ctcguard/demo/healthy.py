"""The healthy case: a Trainer with one line added, and nothing to report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctcguard.demo.metrics import character_error_rate
from ctcguard.demo.recogniser import examples, make_model, make_processor, transcribe
from ctcguard.demo.screen import ProgressBar, progress_callback
from ctcguard.demo.speech import VOICES, Utterance, spoken_digits
from ctcguard.demo.training import Records, Stage, make_trainer

if TYPE_CHECKING:
    from transformers import Trainer

TITLE = "healthy: nothing is wrong, and the guard keeps quiet"
ACCEPTED_ERROR_RATE = 0.05
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Size:
    """How much is trained: utterances, steps, utterances a step."""

    train: int
    unseen: int
    steps: int
    batch: int


FULL = Size(train=1000, unseen=200, steps=400, batch=16)
QUICK = Size(train=64, unseen=16, steps=24, batch=8)


def run(stage: Stage) -> bool:
    """Train, transcribe unseen utterances, and count the findings.

    Parameters
    ----------
    stage : Stage
        With ``quick``, too little is trained to judge the character error rate; it is shown all the same.

    Returns
    -------
    bool
        Whether there was no finding and, unless quick, the character error rate is at most 5%.
    """
    from transformers import set_seed

    from ctcguard import CTCGuard

    size, screen = QUICK if stage.quick else FULL, stage.screen
    set_seed(0)
    processor = make_processor()
    model = make_model(processor)
    with screen.busy("speaking, and listening to it"):
        train = spoken_digits(size.train, seed=1)
        unseen = spoken_digits(size.unseen, seed=2, exclude={utterance.text for utterance in train})
        data = examples(train, processor)
    minutes = sum(utterance.duration_s for utterance in train) / 60
    screen.row("speech", f"{len(train)} utterances of 2 to 4 digits, {len(VOICES)} voices, {minutes:.1f} minutes")
    screen.row("model", f"Wav2Vec2-BERT, {model.num_parameters():,} parameters, {size.steps} steps of {size.batch}")
    screen.row("guard", "one line: trainer.add_callback(CTCGuard())")
    fields: dict[str, Any] = {"per_device_train_batch_size": size.batch, "report_to": ["wandb"]}
    trainer = make_trainer(model, processor, data, stage.directory, steps=size.steps, **fields)
    guard = CTCGuard()
    trainer.add_callback(guard)
    step_ms = _train(stage, trainer, lambda: len(guard.watch.findings) if guard.watch else 0) / size.steps
    heard = transcribe(model, processor, examples(unseen, processor))
    return _conclude(stage, _show_transcripts(stage, unseen, heard), step_ms)


def _train(stage: Stage, trainer: Trainer, findings: Callable[[], int]) -> float:
    """Train with a progress bar, and wandb offline; the milliseconds that it took."""
    bar = ProgressBar(stage.screen, trainer.args.max_steps)
    trainer.add_callback(progress_callback(bar, findings))
    with _offline_wandb(stage.directory) as file:
        try:
            seconds = float(trainer.train().metrics["train_runtime"])
        finally:
            bar.close()
    stage.screen.row("wandb", f"offline, {file.stat().st_size / 1024:.0f} kB in {file.name}")
    return 1000 * seconds


@contextmanager
def _offline_wandb(directory: Path) -> Iterator[Path]:
    """A run that goes to a file; gives the path of that file, which is whole when the block has ended."""
    import wandb

    settings = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
    with wandb.init(project="ctcguard-demo", mode="offline", dir=str(directory), settings=settings) as run:
        yield Path(run.settings.sync_file)


def _show_transcripts(stage: Stage, unseen: Sequence[Utterance], heard: Sequence[str]) -> float:
    screen, said = stage.screen, [utterance.text for utterance in unseen]
    width = max(map(len, said[:SHOWN]))
    for text, transcript in list(zip(said, heard, strict=True))[:SHOWN]:
        screen.row("said", f"{text:<{width}}   heard: {transcript}")
    error_rate = character_error_rate(said, heard)
    right = sum(text == transcript for text, transcript in zip(said, heard, strict=True)) / len(said)
    screen.row("result", f"character error rate {error_rate:.1%} on {len(said)} unseen utterances")
    screen.row("", f"{right:.0%} of them exactly right")
    if stage.quick:
        screen.row("", "(not judged: --quick trains too little to learn anything)")
    return error_rate


def _conclude(stage: Stage, error_rate: float, step_ms: float) -> bool:
    records = Records.of(stage.directory / "ctcguard")
    found = len(records.findings)
    codes = ", ".join(sorted({finding["code"] for finding in records.findings}))
    share = records.end["overhead_fraction"]
    cost = f"the guard took {share:.1%} of the time: {share * step_ms:.1f} of {step_ms:.0f} ms a step"
    stage.screen.row("cost", cost)
    heard = stage.quick or error_rate <= ACCEPTED_ERROR_RATE
    learned = "" if heard else f"; the character error rate must be at most {ACCEPTED_ERROR_RATE:.0%}"
    text = f"{found} findings{f' ({codes})' if codes else ''} in {records.end['calls']} CTC calls{learned}"
    stage.screen.outcome(heard and not found, text)
    return heard and not found
