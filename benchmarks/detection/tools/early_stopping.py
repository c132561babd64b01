"""Lightning's ``EarlyStopping(check_finite=True)``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.detection.tools._tool import Say, Steps, Tool


class EarlyStopping(Tool):
    """Stops a Trainer when its metric is not finite."""

    name = "early-stopping"
    title = "Lightning EarlyStopping"
    how = (
        "the losses of the program, one an epoch, through a real `lightning.Trainer` with "
        "`EarlyStopping('train_loss', check_finite=True)` and endless patience: at once, where a user's own would wait "
        "for the end of an epoch"
    )

    @contextmanager
    def attached(self, kind: str, say: Say, steps: Steps) -> Iterator[None]:
        from benchmarks.detection.torch_program import losses

        self._losses: list[tuple[int, Any]] = []
        with losses(lambda loss: self._losses.append((steps.taken, loss.detach().float().sum()))):
            yield

    def finish(self, say: Say) -> None:
        if not self._losses:
            return
        import torch
        from lightning import LightningModule, Trainer
        from lightning.pytorch.callbacks import EarlyStopping as Stopping

        recorded = self._losses

        class Replay(LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.weight = torch.nn.Parameter(torch.zeros(()))

            def training_step(self, batch: Any, index: int) -> Any:
                loss = recorded[self.current_epoch][1]
                self.log("train_loss", loss)
                return self.weight + loss

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.0)

        stopping = Stopping("train_loss", check_finite=True, patience=len(recorded) + 1)
        trainer = Trainer(
            max_epochs=len(recorded),
            accelerator="cpu",
            callbacks=[stopping],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Replay(), torch.utils.data.DataLoader([0]))
        if stopping.stopping_reason_message:
            step = recorded[stopping.stopped_epoch][0]
            say(stopping.stopping_reason.name, stopping.stopping_reason_message, step)
