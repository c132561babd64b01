"""Single passes through the model of a CTC call: what comes out of it, in one normal form."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ctcguard_integrations import torch_seam
from ctcguard_integrations.torch_model_inputs import Inputs, UnsuitableError
from ctcguard_integrations.torch_model_random import Draw, RandomDraws
from ctcguard_integrations.torch_model_state import Kept
from ctcguard_integrations.torch_model_trace import Trace
from ctcguard_integrations.torch_model_trees import rebuilt, tensors

HALF = (torch.bfloat16, torch.float16)
LAYOUTS = ((0, 1, 2), (1, 0, 2), (0, 2, 1))
"""Where the axes of batch, time and values may be in what models return."""
NEARLY = 2
"""So many frames more or less may come out of a convolution than its stride lets expect."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass gave.

    Attributes
    ----------
    scores : torch.Tensor, (batch, time, values)
        Log-probs where that is what the model makes, else whatever comes out of it.
    are_log_probs : bool
        Whether they are log-probs.
    trace : Trace
        What the modules did.
    draws : list of Draw
        What drew random numbers, if that was asked for.
    """

    scores: torch.Tensor
    are_log_probs: bool
    trace: Trace
    draws: list[Draw]


class Taken:
    """Takes the log-probs of CTC losses that the model computes itself; the losses are not computed."""

    aware = True

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.log_probs: list[torch.Tensor] = []

    def loss(self, original: Callable[..., torch.Tensor], **arguments: Any) -> torch.Tensor:
        """Zero, in the shape of the loss; another thread gets its own loss."""
        if threading.get_ident() != self.thread:
            return original(*arguments.values())
        log_probs: torch.Tensor = arguments["log_probs"]
        self.log_probs.append(log_probs if log_probs.ndim == 3 else log_probs[:, None])
        return log_probs.new_zeros(self.log_probs[-1].shape[1] if arguments["reduction"] == 0 else ())

    def stepping(self, optimizer: torch.optim.Optimizer) -> None:
        """Nothing steps in a forward pass."""

    def stepped(self) -> None:
        """Nothing steps in a forward pass."""

    def scaled(self, scaler: torch.amp.GradScaler, by_hand: bool) -> None:
        """Nothing is scaled in a forward pass."""


class Passes:
    """Runs the model with its inputs made again.

    Parameters
    ----------
    model : torch.nn.Module
        In eval mode.
    inputs : Inputs
        What it was called with.
    kept : Kept
        Takes modules that are not part of it.
    batch, frames, classes : int
        Shape of the CTC call that followed.
    """

    def __init__(
        self, model: torch.nn.Module, inputs: Inputs, kept: Kept, batch: int, frames: int, classes: int
    ) -> None:
        self._model, self._inputs, self._kept = model, inputs, kept
        self._batch, self._frames, self._classes = batch, frames, classes
        self._full = all(weight.dtype not in HALF for weight in model.parameters())
        self._tables = [layer.num_embeddings for layer in model.modules() if isinstance(layer, torch.nn.Embedding)]
        self._layout: tuple[int, tuple[int, ...]] | None = None
        self.count = 0

    def run(self, sources: Sequence[int], extra: int, followed: int, look_for_random: bool = False) -> Pass:
        """One pass with utterance ``sources[i]`` in row i, padded by ``extra`` more; one utterance is traced.

        Raises
        ------
        UnsuitableError
            When the inputs cannot be made so, the model refuses them, or nothing with a time axis comes out.
        """
        frames = self._frames + extra * self._frames // self._inputs.width
        self._refuse_positions(frames, self._inputs.width + extra)
        args, kwargs = rebuilt(self._inputs.rows(sources, extra), self._widened)
        rows = [row for row, source in enumerate(sources) if source == followed]
        trace = Trace(self._model, self._batch, rows, self._kept)
        draws = RandomDraws(lambda: trace.running)
        self.count += 1
        try:
            with ExitStack() as stack:
                taken = stack.enter_context(_taken())
                stack.enter_context(trace)
                if look_for_random:
                    stack.enter_context(draws)
                result = self._model(*args, **kwargs)
        except Exception as error:
            raise UnsuitableError(f"{type(error).__name__}: {error}") from error
        return Pass(*self._scores(taken.log_probs, result, frames), trace, draws.seen)

    def precision(self, done: Pass) -> str:
        """The dtype whose rounding the scores show."""
        kinds = {weight.dtype for weight in self._model.parameters()} | done.trace.dtypes | {done.scores.dtype}
        lowest = next((kind for kind in HALF if kind in kinds), None)
        if lowest is not None:
            return str(lowest).removeprefix("torch.")
        return "float32" if done.scores.device.type == "cpu" else "tensorfloat32"

    def _refuse_positions(self, frames: int, width: int) -> None:
        """Learnt positions may not reach that far, and on CUDA an index beyond them ends the process."""
        for size in self._tables:
            if self._frames <= size < frames or self._inputs.width <= size < width:
                raise UnsuitableError(f"it has an embedding of {size}, which may be positions")

    def _widened(self, leaf: Any) -> Any:
        """Features in half precision as a model in full precision takes them outside of autocast."""
        narrow = self._full and isinstance(leaf, torch.Tensor) and leaf.dtype in HALF
        return leaf.float() if narrow else leaf

    def _scores(self, log_probs: list[torch.Tensor], result: Any, frames: int) -> tuple[torch.Tensor, bool]:
        """What is compared, and whether it is log-probs: those of the loss, else whatever is scores for the classes."""
        if log_probs:
            return log_probs[0].transpose(0, 1), True
        found = [tensor for tensor in tensors(result) if tensor.is_floating_point() and tensor.ndim == 3]
        self._layout = self._layout or self._find_layout(found, frames)
        number, axes = self._layout
        if number >= len(found):
            raise UnsuitableError("what it returned differs from pass to pass")
        scores = found[number].permute(axes)
        logits = scores.shape[2] == self._classes and bool((scores < 0).any())
        return (scores.float().log_softmax(-1), True) if logits else (scores, False)

    def _find_layout(self, found: list[torch.Tensor], frames: int) -> tuple[int, tuple[int, ...]]:
        """Which of the tensors is compared, and where its axes of batch, time and values are: first by the classes."""
        turned = [(number, axes, found[number].permute(axes).shape) for number in range(len(found)) for axes in LAYOUTS]
        batches = [option for option in turned if option[2][0] == self._batch]
        scores = [option for option in batches if option[2][2] == self._classes]
        options = scores or [option for option in batches if abs(option[2][1] - frames) <= NEARLY]
        if not options:
            raise UnsuitableError(f"nothing that it returned has the axes batch ({self._batch}), time and classes")
        number, axes, _ = options[0]
        if sum(option[0] == number for option in options) > 1:
            raise UnsuitableError(f"the axes of what it returned cannot be told apart: {tuple(found[number].shape)}")
        return number, axes


@contextmanager
def _taken() -> Iterator[Taken]:
    taken = Taken()
    torch_seam.add(taken)
    try:
        yield taken
    finally:
        torch_seam.remove(taken)
