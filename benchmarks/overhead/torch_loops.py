"""Trainings of PyTorch as users write them: each object has a model of its own and takes one optimizer step a call."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

BATCHES = 4
"""Prepared before, and taken in turns: no data loader is measured."""


class Loop:
    """A model, its optimizer, and a loss of one batch.

    Parameters
    ----------
    model : torch.nn.Module
        Called with the first part of a batch.
    batches : list of tuple
        Prepared batches.
    loss : callable
        Of the model and a batch.
    """

    def __init__(self, model: nn.Module, batches: list[Any], loss: Callable[[nn.Module, Any], Tensor]) -> None:
        self.model, self.batches, self.loss = model, batches, loss
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        self._taken = 0

    def __call__(self) -> None:
        """Take a step."""
        batch = self.batches[self._taken % len(self.batches)]
        self._taken += 1
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.model, batch).backward()
        self.optimizer.step()


class CNNBiLSTM(nn.Module):
    """Two convolutions that halve the time axis, a bidirectional LSTM, a head of 32 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv1d(80, 96, 5, stride=2, padding=2), nn.ReLU(), nn.Conv1d(96, 96, 5, padding=2), nn.ReLU()
        )
        self.lstm = nn.LSTM(96, 96, bidirectional=True, batch_first=True)
        self.head = nn.Linear(192, 32)

    def forward(self, features: Tensor) -> Tensor:
        """Log-probs, (time, batch, classes), of features (batch, 80, frames)."""
        hidden, _ = self.lstm(self.convolutions(features).transpose(1, 2))
        return self.head(hidden).log_softmax(-1).transpose(0, 1)


def cnn_bilstm() -> Loop:
    """32 utterances of up to 5 s, features every 10 ms."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)

    def batch() -> tuple[Tensor, ...]:
        lengths = torch.randint(125, 251, (32,), generator=generator)
        lengths[0] = 250
        counts = torch.randint(15, 41, (32,), generator=generator)
        targets = torch.randint(1, 32, (32, 40), generator=generator)
        return torch.randn(32, 80, 500, generator=generator), targets, lengths, counts

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        features, *call = batch
        return nn.functional.ctc_loss(model(features), *call, zero_infinity=True)

    return Loop(CNNBiLSTM(), [batch() for _ in range(BATCHES)], loss)


def wav2vec2() -> Loop:
    """A tiny Wav2Vec2 on raw audio: 16 clips of up to 2 s at 16 kHz."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
    convolutions = {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    model = Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=32, ctc_loss_reduction="mean", **sizes, **convolutions))

    def batch() -> dict[str, Tensor]:
        labels = torch.randint(3, 32, (16, 20), generator=generator)
        labels[1, 15:] = -100
        mask = torch.ones(16, 32_000, dtype=torch.long)
        mask[1, 24_000:] = 0
        return {"input_values": torch.randn(16, 32_000, generator=generator), "attention_mask": mask, "labels": labels}

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        found: Tensor = model(**batch).loss
        return found

    return Loop(model.train(), [batch() for _ in range(BATCHES)], loss)


class TrainerLoop:
    """The demo's model in the Trainer of transformers, in a thread of its own that takes a step when it is told to.

    All steps have the same batch: one of longer utterances would take longer.

    Parameters
    ----------
    callbacks : sequence of TrainerCallback
        Added as a user adds them.
    **changes
        Fields of `TrainingArguments`.
    """

    def __init__(self, callbacks: Any = (), **changes: Any) -> None:
        from transformers import TrainerCallback

        from ctcguard.demo import recogniser, speech, training

        loop = self

        class Begins(TrainerCallback):
            def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
                loop._arrived.set()
                loop._told.acquire()

        self._told, self._arrived, self._ended = threading.Semaphore(0), threading.Event(), False
        torch.manual_seed(0)
        processor = recogniser.make_processor()
        data = recogniser.examples(speech.spoken_digits(16, seed=0), processor) * BATCHES
        folder = Path(tempfile.mkdtemp())
        self.model = recogniser.make_model(processor)
        self._trainer = training.make_trainer(
            self.model,
            processor,
            data,
            folder,
            steps=1_000_000,
            **{"logging_steps": 1_000_000, "train_sampling_strategy": "sequential", **changes},
        )
        for callback in callbacks:
            self._trainer.add_callback(callback)
        self._trainer.add_callback(Begins)
        self._thread = threading.Thread(target=self._trainer.train, daemon=True)

    def start(self) -> None:
        """Up to the first step, where guards are at work."""
        self._thread.start()
        self._arrived.wait()

    def __call__(self) -> None:
        """One step, and the batch of the next one."""
        self._arrived.clear()
        self._told.release()
        self._arrived.wait()
