"""Lightning Fabric's ``SpikeDetection``, whose callback any loop may call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.detection.tools._tool import Say, Steps, Tool


class SpikeDetection(Tool):
    """Raises when the loss, not the first one, is far from its running mean, or not finite."""

    name = "spike-detection"
    title = "Lightning SpikeDetection"
    how = (
        "`Fabric(callbacks=[SpikeDetection()])` with its defaults, called with every loss whose `backward()` is called"
    )

    @contextmanager
    def attached(self, kind: str, say: Say, steps: Steps) -> Iterator[None]:
        from lightning.fabric import Fabric
        from lightning.fabric.utilities.spike import SpikeDetection as Spikes

        from benchmarks.detection.torch_program import losses

        fabric = Fabric(accelerator="cpu", devices=1, callbacks=[Spikes(exclude_batches_path=self.folder)])
        count = 0

        def seen(loss: Any) -> None:
            nonlocal count
            index, count = count, count + 1
            value = loss.detach().float().sum()
            fabric.call("on_train_batch_end", fabric=fabric, loss=value, batch=None, batch_idx=index)

        with losses(seen):
            yield

    def alarm(self, error: BaseException) -> tuple[str, str] | None:
        return ("spike", str(error)) if type(error).__name__ == "TrainingSpikeException" else None
