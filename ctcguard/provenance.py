"""How the log-probs came to be: a short list of steps from the head to the loss, whatever the framework."""

from __future__ import annotations

from dataclasses import dataclass

NEUTRAL = frozenset({"transpose", "permute", "clone", "view", "cast", "slice", "squeeze", "unsqueeze"})


@dataclass(frozen=True, slots=True)
class Step:
    """One operation between the head and the loss.

    Attributes
    ----------
    op : str
        Framework-neutral name: ``log_softmax``, ``softmax``, ``log``, ``divide``, ``view``, ``linear`` …
    axis : int or None
        The axis that a softmax ran over, counted from 0 in the tensor it ran on.
    class_axis : int or None
        Where the class axis of the loss stood in that tensor; None when it was lost on the way.
    shape : tuple of int
        Shape of the result.
    dtype : str
        Dtype of the result, for instance ``"bfloat16"``.
    """

    op: str
    axis: int | None = None
    class_axis: int | None = None
    shape: tuple[int, ...] = ()
    dtype: str = ""

    def __str__(self) -> str:
        words = [self.op]
        words += [f"axis {self.axis}"] if self.axis is not None else []
        words += [f"→ {self.shape}"] if self.op == "view" else []
        words += [f"→ {self.dtype}"] if self.op == "cast" else []
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Steps from the head (first) to the loss (last).

    Attributes
    ----------
    steps : tuple of Step
        Empty when nothing is known.
    reaches_head : bool
        Whether the chain was followed down to a layer with weights; only then does a missing softmax mean anything.
    """

    steps: tuple[Step, ...] = ()
    reaches_head: bool = False

    def softmax(self) -> Step | None:
        """The last softmax or log-softmax before the loss."""
        return next((step for step in reversed(self.steps) if step.op in ("softmax", "log_softmax")), None)

    def after_softmax(self) -> tuple[Step, ...]:
        """Steps between that softmax and the loss that change values (a log after a softmax is not counted)."""
        softmax = self.softmax()
        if softmax is None:
            return ()
        later = self.steps[self.steps.index(softmax) + 1 :]
        return tuple(step for step in later if step.op not in NEUTRAL and step.op != "log")

    def softmax_twice(self) -> bool:
        """Whether probabilities went into the last softmax: one over the classes, and nothing but moves in between."""
        last = self.softmax()
        if last is None:
            return False
        before = [step for step in self.steps[: self.steps.index(last)] if step.op not in NEUTRAL]
        over_classes = last.axis is not None and last.axis == last.class_axis
        return over_classes and bool(before) and before[-1].op == "softmax" and before[-1].axis == before[-1].class_axis

    def ops(self) -> frozenset[str]:
        """Names of all steps."""
        return frozenset(step.op for step in self.steps)

    def __str__(self) -> str:
        return " → ".join(str(step) for step in self.steps)


UNKNOWN = Provenance()
