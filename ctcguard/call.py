"""A CTC loss call in one normal form, whatever framework it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

from ctcguard._array import Array, as_array, dtype_name, namespace
from ctcguard.errors import CallError
from ctcguard.provenance import UNKNOWN, Provenance

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class CTCCall:
    """What one CTC loss call was given and returned. Views, never copies of ``scores``; no gradient.

    Attributes
    ----------
    scores : array, (batch, time, classes)
        What the loss was given: log-probs or logits, as ``expects`` says.
    expects : {"log_probs", "logits"}
        What the loss wants there: log-probs for torch, logits for optax.
    targets : array, (batch, labels) or (labels,)
        Padded, or concatenated as torch allows.
    input_lengths, target_lengths : array, (batch,)
        Valid frames and labels of each utterance.
    blank : int
        Index of the blank class.
    losses : array, (batch,), or None
        Per-utterance losses in nats, before any reduction; None when they are not known.
    reduction : str
        The reduction that the caller asked for.
    zero_infinity : bool
        Whether the loss replaces infinite losses by zero.
    source : str
        The function that was called.
    call_site : str
        ``file:line`` of the user's own code.
    provenance : Provenance
        How the scores were made.
    utterance_ids : tuple of str
        Names given by the user, one an utterance, or empty.
    unknown : int or None
        Index of the symbol that stands for whatever the vocabulary lacks (unk), where one is known.
    given_labels : array, (batch, labels), or None
        The labels as the framework was given them, before it removed some (Hugging Face removes padding and blanks).
    """

    scores: Array
    expects: Literal["log_probs", "logits"]
    targets: Array
    input_lengths: Array
    target_lengths: Array
    blank: int
    losses: Array | None = None
    reduction: str = "none"
    zero_infinity: bool = False
    framework: str = ""
    source: str = ""
    call_site: str = ""
    provenance: Provenance = UNKNOWN
    utterance_ids: tuple[str, ...] = ()
    unknown: int | None = None
    given_labels: Array | None = None
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def batch(self) -> int:
        """Utterances in the batch."""
        return int(self.scores.shape[0])

    @property
    def frames(self) -> int:
        """Length of the padded time axis."""
        return int(self.scores.shape[1])

    @property
    def classes(self) -> int:
        """Width of the scores, blank included."""
        return int(self.scores.shape[2])

    @property
    def concatenated(self) -> bool:
        """Whether the targets are one row of all labels."""
        return len(self.targets.shape) == 1

    @property
    def softmax_dtype(self) -> str:
        """Dtype in which the softmax ran: from the provenance where that knows, else the dtype of the scores."""
        softmax = self.provenance.softmax()
        return softmax.dtype if softmax is not None and softmax.dtype else dtype_name(self.scores)

    def once(self, make: Callable[[CTCCall], Made]) -> Made:
        """What several probes need of the call: made for the first of them, kept as long as this object."""
        if make not in self._made:
            self._made[make] = make(self)
        found: Made = self._made[make]
        return found

    def with_losses(self, losses: Array) -> CTCCall:
        """The same call, with what it returned."""
        return self._with(losses=losses)

    def with_ids(self, utterance_ids: tuple[str, ...]) -> CTCCall:
        """The same call, its utterances named."""
        return self._with(utterance_ids=utterance_ids)

    def with_unknown(self, unknown: int) -> CTCCall:
        """The same call, with the index of the unknown symbol."""
        return self._with(unknown=unknown)

    def with_provenance(self, provenance: Provenance) -> CTCCall:
        """The same call, with how its scores were made."""
        return self._with(provenance=provenance)

    def without_arrays(self) -> CTCCall:
        """The same call without its scores and losses, so that waiting for a reading keeps no batch alive."""
        return self._with(scores=Gone((self.batch, 0, 0), self.scores.dtype), losses=None, given_labels=None)

    def _with(self, **changes: Any) -> CTCCall:
        """As `dataclasses.replace`, which takes ten times as long: a call is copied twice a step."""
        other = object.__new__(CTCCall)
        other.__dict__.update(self.__dict__, _made={}, **changes)
        return other


class Gone(NamedTuple):
    """Stands in for scores that are held no longer."""

    shape: tuple[int, int, int]
    dtype: Any


def ctc_call(
    *,
    log_probs: Array | None = None,
    logits: Array | None = None,
    targets: Any,
    input_lengths: Any,
    target_lengths: Any,
    blank: int,
    losses: Array | None = None,
    batch_first: bool = True,
    **facts: Any,
) -> CTCCall:
    """Bring a call into the normal form.

    Parameters
    ----------
    log_probs, logits : array, (batch, time, classes)
        Exactly one of the two: what the loss expects. (time, batch, classes) with ``batch_first=False``;
        (time, classes) for one utterance without a batch.
    targets : array or sequence, (batch, labels) or (labels,)
        Padded, or all labels in one row.
    input_lengths, target_lengths : array, sequence or int, (batch,)
        Lists and tuples become numpy arrays; arrays stay where they are.
    blank : int
        Index of the blank class.
    losses : array, (batch,), optional
        Per-utterance losses in nats.
    batch_first : bool
        Whether the first axis is the batch.
    **facts
        The other fields of `CTCCall`.

    Returns
    -------
    CTCCall
        Holds views of what was given.

    Raises
    ------
    CallError
        If the shapes are not those of one CTC call.

    Examples
    --------
    >>> import numpy as np
    >>> call = ctc_call(
    ...     log_probs=np.log(np.full((50, 4), 0.25)), targets=[1, 2], input_lengths=50, target_lengths=2, blank=0
    ... )
    >>> call.batch, call.frames, call.classes
    (1, 50, 4)
    """
    if (log_probs is None) == (logits is None):
        raise CallError("give exactly one of log_probs= (already normalised) and logits= (the loss applies softmax)")
    scores: Array = log_probs if logits is None else logits
    rank = len(scores.shape)
    if rank not in (2, 3):
        raise CallError(
            f"log_probs must be (batch, time, classes) or (time, classes), not of shape {tuple(scores.shape)}"
        )
    if rank == 2:
        scores = namespace(scores).expand_dims(scores, axis=0)
    elif not batch_first:
        scores = namespace(scores).permute_dims(scores, (1, 0, 2))
    batch = int(scores.shape[0])
    lengths = [_lengths(name, values, batch) for name, values in (("input", input_lengths), ("target", target_lengths))]
    targets = as_array(targets)
    if len(targets.shape) not in (1, 2) or (len(targets.shape) == 2 and targets.shape[0] != batch):
        raise CallError(
            f"targets must be (batch, labels) with batch {batch}, or one row, not of shape {tuple(targets.shape)}"
        )
    return CTCCall(
        scores=scores,
        expects="log_probs" if logits is None else "logits",
        targets=targets,
        input_lengths=lengths[0],
        target_lengths=lengths[1],
        blank=int(blank),
        losses=losses if losses is None else namespace(losses).reshape(losses, (-1,)),
        **facts,
    )


def _lengths(name: str, values: Any, batch: int) -> Array:
    values = as_array(values)
    if len(values.shape) == 0:
        values = namespace(values).reshape(values, (1,))
    if tuple(values.shape) != (batch,):
        raise CallError(
            f"{name}_lengths must hold one length for each of the {batch} utterances, not {tuple(values.shape)}"
        )
    return values
