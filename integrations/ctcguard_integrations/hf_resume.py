"""Checkpoints of the Hugging Face Trainer: what a guard remembers goes in and comes back, each rank's in its own file.

Not into ``trainer_state.json``, which is written by rank 0 alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from ctcguard_integrations.torch_loop import Watch

_resumed: dict[int, Path] = {}
"""The checkpoint from which a training goes on, by the identity of the trainer's arguments."""


@contextmanager
def resuming(trainer: Trainer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[None]:
    """Around ``Trainer.train(*args, **kwargs)``: note from which checkpoint it goes on, as it decides it."""
    wanted = args[0] if args else kwargs.get("resume_from_checkpoint")
    if wanted is True:
        wanted = get_last_checkpoint(trainer.args.output_dir)
    if wanted:
        _resumed[id(trainer.args)] = Path(wanted)
    try:
        yield
    finally:
        _resumed.pop(id(trainer.args), None)


def save(watch: Watch, args: Any, step: int) -> None:
    """Write what the guard remembers into the checkpoint of this step; whole or not at all."""
    file = _file(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{step}", watch)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(watch.state_dict()), encoding="utf-8")
    unfinished.replace(file)


def load(watch: Watch, args: Any) -> None:
    """Go on where the checkpoint was written; one from before ctcguard, or of more ranks, has nothing for this one."""
    checkpoint = _resumed.get(id(args))
    if checkpoint is not None and _file(checkpoint, watch).exists():
        watch.load_state_dict(json.loads(_file(checkpoint, watch).read_text(encoding="utf-8")))


def _file(checkpoint: Path, watch: Watch) -> Path:
    return checkpoint / f"ctcguard-rank{watch.guard.place.rank}.json"
