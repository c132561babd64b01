"""A head narrower than the tokenizer, with Hugging Face's own check of the labels bypassed by the config."""

from __future__ import annotations

from ctcguard.demo.broken import Caught, Expected, conclude
from ctcguard.demo.recogniser import SYMBOLS, examples, make_model, make_processor
from ctcguard.demo.speech import spoken_digits
from ctcguard.demo.training import Records, Stage, Weights, make_trainer

TITLE = "narrow-head: the tokenizer has more symbols than the head has classes"
EXPECTED = Expected("CTC101", "missing-classes")
WIDTH = len(SYMBOLS) - 2


def run(stage: Stage) -> bool:
    """Replace the head by a narrower one, leave the config alone, and train until it is stopped.

    Parameters
    ----------
    stage : Stage
        Where it plays.

    Returns
    -------
    bool
        Whether it was stopped before training with the right verdict and untouched weights.
    """
    import torch
    from transformers import set_seed

    from ctcguard import CTCGuard

    set_seed(0)
    processor = make_processor()
    model = make_model(processor)
    model.lm_head = torch.nn.Linear(model.config.hidden_size, WIDTH)
    missing = " and ".join(SYMBOLS[WIDTH:])
    symbols = len(processor.tokenizer)
    stage.screen.row(
        "mistake", f"the head has {WIDTH} classes, the tokenizer {symbols} symbols: no class for {missing}"
    )
    stage.screen.row(
        "without", f"Hugging Face compares labels with config.vocab_size ({symbols}) only; torch reads beyond the frame"
    )
    stage.screen.row("guard", "one line: trainer.add_callback(CTCGuard())")
    data = examples(spoken_digits(32, seed=4), processor)
    trainer = make_trainer(model, processor, data, stage.directory, steps=4, per_device_train_batch_size=8)
    trainer.add_callback(CTCGuard())
    weights = Weights(model)
    with Caught() as caught:
        trainer.train()
    problems = (
        "" if caught.stopped else "the training was not stopped",
        "" if weights.untouched() else "weights changed",
    )
    good = f"stopped before the first batch; all {weights.count} weight tensors are untouched"
    return conclude(stage.screen, Records.of(stage.directory / "ctcguard"), EXPECTED, problems, good)
