"""Random CTC calls, right ones and every kind of wrong one, and what may come of them under a guard.

`trained` gives a call to the real ``torch.nn.functional.ctc_loss`` twice, without and with a guard, and compares.
torch's kernel reads and writes out of bounds for labels that are no classes, so those calls go through
``guard.observe`` and `ctcguard.diagnose` (`judged`), or under a guard that must stop them before the kernel
(`stopped`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from ctcguard import CallError, CTCVerdictError, diagnose
from ctcguard.guard import Guard
from ctcguard.settings import load
from ctcguard_integrations.torch_loop import Watch, watch

PRISTINE = torch.ctc_loss
EXTREMES = (2**63 - 1, -(2**63), 2**62, -(2**31) - 1, 2**31, 2**24 + 1)
LABEL_DTYPES = ("int64", "int32", "int16", "uint8", "float32", "float64", "uint64", "int8")
ROOMY = ("int64", "uint64", "float64")
"""Dtypes in which the extremes are themselves, or nearly."""


class Pick(Protocol):
    """Where choices come from: a random number generator, or hypothesis."""

    def whole(self, low: int, high: int) -> int:
        """One of low … high."""

    def one(self, options: Sequence[Any]) -> Any:
        """One of the options; the first is the simplest."""


class Random:
    """Choices of numpy's generator."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.default_rng(seed)

    def whole(self, low: int, high: int) -> int:
        return int(self._generator.integers(low, high + 1))

    def one(self, options: Sequence[Any]) -> Any:
        return options[int(self._generator.integers(len(options)))]


@dataclass
class Call:
    """A call, (batch, time, classes), and what is known of it by construction."""

    kind: str
    scores: Any
    targets: Any
    input_lengths: Any
    target_lengths: Any
    blank: int
    losses: Any = None
    right_shapes: bool = True
    labels: list[list[float]] = field(default_factory=list)
    """Those that count, where it is certain which do."""

    def beyond(self) -> bool:
        """Whether one of the labels is no class: at or above their number."""
        return any(label >= self.scores.shape[-1] for row in self.labels for label in row)

    def negative(self) -> bool:
        return any(label < 0 for row in self.labels for label in row)


def call(pick: Pick, wild: bool = True) -> Call:
    """A random call; without ``wild``, one whose labels are classes and whose arrays torch can have."""
    batch, frames = pick.one((2, 1, 3, 4, 0)), pick.one((9, 1, 5, 12, 30, 0))
    classes, room = pick.one((5, 2, 8, 1, 40, 0)), pick.one((3, 1, 2, 6, 0))
    chance = np.random.default_rng(pick.whole(0, 2**31))
    scores = _scores(pick, chance, (batch, frames, classes))
    lengths = chance.integers(0, room + 1, batch) if pick.whole(0, 2) else np.full(batch, room)
    frames_of = np.full(batch, frames) if pick.whole(0, 1) else chance.integers(0, frames + 1, batch)
    labels, kind = _labels(pick, chance, (batch, room), classes, wild)
    counted = [labels[row, : lengths[row]].tolist() for row in range(batch)]
    targets: Any = labels
    if pick.whole(0, 3) == 0:
        targets, kind = np.asarray([label for row in counted for label in row], labels.dtype), f"{kind}, in one row"
    blank = pick.one((0, 0, 0, max(0, classes - 1), -1, classes, 2**40))
    made = Call(kind, scores, _strided(pick, targets), frames_of, lengths, blank, labels=counted)
    _spoil_lengths(pick, made, wild)
    if pick.whole(0, 9) == 0:
        _spoil_shapes(pick, made)
    return made


def _scores(pick: Pick, chance: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    values = chance.normal(size=shape).astype(pick.one(("float32", "float32", "float64")))
    how = pick.one(("right", "right", "raw", "nan", "infinite", "huge", "nothing", "padding", "same"))
    if how in ("right", "padding", "nan") and values.size:
        values -= np.log(np.exp(values).sum(-1, keepdims=True))
    if how in ("nan", "infinite") and values.size:
        values.reshape(-1)[chance.integers(values.size)] = np.nan if how == "nan" else pick.one((np.inf, -np.inf))
    if how == "padding":
        values[:, -1:] = np.nan
    if how in ("huge", "nothing", "same"):
        values[:] = {"huge": 3e38, "nothing": -np.inf, "same": 0.0}[how]
    return values


def _labels(
    pick: Pick, chance: np.random.Generator, shape: tuple[int, int], classes: int, wild: bool
) -> tuple[np.ndarray[Any, Any], str]:
    values = chance.integers(0, max(1, classes), shape)
    how = (
        pick.one(("classes", "classes", "beyond", "negative", "extreme", "any")) if wild and values.size else "classes"
    )
    dtype = pick.one(LABEL_DTYPES if wild else ("int64", "int32", "uint8", "float32"))
    place = chance.integers(values.size) if values.size else 0
    if how == "beyond":
        values.reshape(-1)[place] = classes + pick.one((0, 1, 40))
    if how == "negative":
        dtype = dtype if not dtype.startswith("u") else "int64"
        values.reshape(-1)[place] = pick.one((-1, -100))
    if how == "any":
        values = chance.integers(-3, classes + 4, shape)
        dtype = dtype if not dtype.startswith("u") else "int64"
    if how == "extreme":
        extreme, dtype = pick.one(EXTREMES), pick.one(ROOMY)
        values = values.astype(dtype)
        values.reshape(-1)[place] = max(extreme, 2**40) if dtype == "uint64" else extreme
    return values.astype(dtype), f"labels {how}"


def _strided(pick: Pick, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same values, otherwise laid out in memory."""
    how = pick.one(("plain", "plain", "gaps", "backwards", "columns first", "read-only"))
    if how == "gaps":
        wide = np.repeat(values, 2, axis=-1)
        return wide[..., ::2]
    if how == "backwards":
        return np.ascontiguousarray(values[..., ::-1])[..., ::-1]
    if how == "columns first":
        return np.asfortranarray(values)
    if how == "read-only":
        values = values.copy()
        values.flags.writeable = False
    return values


def _spoil_lengths(pick: Pick, made: Call, wild: bool) -> None:
    """Make a length wrong, or of another kind. Of a row of all labels it is then not certain whose is whose."""
    how = pick.one(("right",) * 6 + ("frames", "labels", "extreme frames", "extreme labels", "fraction"))
    batch = len(made.target_lengths)
    if how == "right" or not batch:
        made.input_lengths, made.target_lengths = (
            _kind_of(pick, lengths) for lengths in (made.input_lengths, made.target_lengths)
        )
        return
    made.kind = f"{made.kind}; {how}"
    number = pick.one(EXTREMES) if how.startswith("extreme") and wild else pick.one((-1, 1000))
    if how.endswith("frames"):
        made.input_lengths = np.array([*made.input_lengths[1:], number])
    if how.endswith("labels"):
        made.target_lengths = np.array([*made.target_lengths[1:], number])
        made.labels = []
    if how == "fraction":
        made.input_lengths = made.input_lengths / 7.5 if wild else made.input_lengths.astype("float32")


def _kind_of(pick: Pick, lengths: np.ndarray[Any, Any]) -> Any:
    how = pick.one(("int64", "int64", "int32", "list", "tuple"))
    if how in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[how](map(int, lengths))
    return lengths.astype(how)


def _spoil_shapes(pick: Pick, made: Call) -> None:
    """Give arrays whose shapes do not belong together."""
    how = pick.one(("too many lengths", "no lengths", "too many rows", "three axes", "one frame", "four axes"))
    made.kind, made.right_shapes, made.labels = f"shapes: {how}", False, []
    if how == "too many lengths":
        made.input_lengths = np.append(np.asarray(made.input_lengths), 1)
    if how == "no lengths":
        made.target_lengths = np.zeros((0, 2), int)
    if how == "too many rows":
        made.targets = np.zeros((made.scores.shape[0] + 1, 2), int)
    if how == "three axes":
        made.targets = np.zeros((1, 1, 1), int)
    if how == "one frame":
        made.scores = made.scores.reshape(-1)
    if how == "four axes":
        made.scores = made.scores[None]


# -------------------------------------------------------------------------------------------------- what may come of it


@dataclass
class Outcome:
    """What a call came to under a guard; empty texts when all is well."""

    kind: str
    exception: str = ""
    """An exception that the training would not have had, or a result that differs."""
    missed: str = ""
    """A label out of range that was not said."""
    fault: str = ""
    """A fault of the guard's own, contained."""


class Judging:
    """Guards for calls: a new one for each, or one for many, as in a run.

    Parameters
    ----------
    per_guard : int
        Calls before a guard is closed and another one opened.
    on_error : str
        The reaction; ``log`` lets everything go on.
    """

    def __init__(self, per_guard: int = 1, on_error: str = "log") -> None:
        self._settings = load(on_error=on_error, on_warning="log", sinks="none", budget=None)
        self._per_guard, self._used = per_guard, 0
        self._guard: Watch | None = None
        self._counts: dict[tuple[str, str], int] = {}
        self._faults = 0

    def __enter__(self) -> Watch:
        if self._guard is None:
            self._guard, self._used, self._counts, self._faults = watch(guard=Guard(self._settings)), 0, {}, 0
        self._used += 1
        return self._guard

    def __exit__(self, *error: object) -> None:
        if self._used >= self._per_guard:
            self.close()

    def said(self) -> set[str]:
        """Codes found since this was last asked."""
        assert self._guard is not None
        self._guard.settle()
        counts = dict(self._guard.guard.reporter.counts)
        new = {code for (code, cause), count in counts.items() if count > self._counts.get((code, cause), 0)}
        self._counts = counts
        return new

    def fault(self) -> str:
        """What the guard said of itself since this was last asked."""
        assert self._guard is not None
        said = [finding.message for finding in self._guard.findings if finding.code == "CTC902"]
        new, self._faults = said[self._faults :], len(said)
        return "; ".join(new)

    def close(self) -> None:
        if self._guard is not None:
            self._guard.close()
            self._guard = None


def missing(made: Call, said: set[str]) -> str:
    """The labels out of range that nobody spoke of. Beyond int64 a label may show as a negative one."""
    wrong = (["beyond"] if made.beyond() else []) + (["negative"] if made.negative() else [])
    if not wrong or not made.right_shapes:
        return ""
    extreme = any(abs(label) >= 2**31 for row in made.labels for label in row)
    wanted = {"beyond": "CTC201", "negative": "CTC202"}
    silent = [each for each in wrong if wanted[each] not in said and not (extreme and said & {"CTC201", "CTC202"})]
    return (
        f"labels {made.labels} of {made.scores.shape[-1]} classes: {silent} not said, only {sorted(said)}"
        if silent
        else ""
    )


def judged(made: Call, judging: Judging) -> Outcome:
    """Through ``guard.observe`` and `diagnose`: nothing but a `CallError` for shapes that do not belong together."""
    outcome = Outcome(made.kind)
    given = {
        "targets": made.targets, "input_lengths": made.input_lengths, "target_lengths": made.target_lengths,
        "blank": made.blank, "losses": made.losses,
    }  # fmt: skip
    with judging as guard:
        for through in ("observe", "diagnose"):
            try:
                if through == "observe":
                    guard.observe(log_probs=made.scores, **given)
                    said = judging.said()
                else:
                    found = diagnose(log_probs=made.scores, **given)
                    said = {finding.code for verdict in found for finding in verdict.findings()}
            except CallError as error:
                outcome.exception = f"{through}: {error}" if made.right_shapes else outcome.exception
            except Exception as error:  # noqa: BLE001 - any of them is what is looked for
                outcome.exception = f"{through}: {type(error).__name__}: {error}"
            else:
                outcome.missed = outcome.missed or missing(made, said)
        outcome.fault = judging.fault()
    return outcome


def trained(made: Call, judging: Judging, pick: Pick) -> Outcome:
    """Through the real loss, forwards and backwards: the same as without a guard, bit for bit, or the same error."""
    outcome = Outcome(made.kind)
    arguments = _of_torch(made, pick)
    with without_guard():
        plain = _attempt(arguments)
    with judging:
        under = _attempt(arguments)
        if plain != under:
            outcome.exception = f"without {plain}, with {under}"
        judging.said()
        outcome.fault = judging.fault()
    return outcome


def stopped(made: Call, judging: Judging) -> Outcome:
    """Through the real loss with ``raise``: a label that is no class is stopped before torch's kernel is called."""
    outcome = Outcome(made.kind)
    if not (made.right_shapes and (made.beyond() or made.negative())) or 0 in made.scores.shape or made.blank != 0:
        return outcome
    with np.errstate(all="ignore"):
        targets = torch.from_numpy(made.targets.astype(np.int64))
    with judging:
        scores = torch.from_numpy(made.scores).transpose(0, 1).log_softmax(-1)
        lengths = [torch.from_numpy(np.array(each, np.int64)) for each in (made.input_lengths, made.target_lengths)]
        try:
            torch.nn.functional.ctc_loss(scores, targets, *lengths)
        except CTCVerdictError:
            pass
        except Exception as error:  # noqa: BLE001 - any of them is what is looked for
            outcome.exception = f"{type(error).__name__}: {error}"
        else:
            outcome.missed = f"labels {made.labels} of {scores.shape[-1]} classes went into the kernel"
        outcome.fault = judging.fault()
    return outcome


@contextmanager
def without_guard() -> Iterator[None]:
    """torch as it is by itself."""
    guarded, torch.ctc_loss = torch.ctc_loss, PRISTINE
    try:
        yield
    finally:
        torch.ctc_loss = guarded


def _of_torch(made: Call, pick: Pick) -> dict[str, Any]:
    scores = torch.from_numpy(np.ascontiguousarray(made.scores))
    if scores.ndim == 3:
        scores = scores.transpose(0, 1)
    if pick.whole(0, 9) == 0:
        scores = scores.to(pick.one((torch.float16, torch.bfloat16, torch.int64)))
    targets = torch.from_numpy(np.array(made.targets))
    lengths = [
        each if isinstance(each, list | tuple) else torch.from_numpy(np.array(each))
        for each in (made.input_lengths, made.target_lengths)
    ]
    if pick.whole(0, 19) == 0:  # devices that do not belong together
        scores = scores.to("meta") if pick.whole(0, 1) else scores
        targets = targets.to("meta") if pick.whole(0, 1) else targets
    return {
        "log_probs": scores.requires_grad_(scores.is_floating_point() and bool(pick.whole(0, 3))),
        "targets": targets, "input_lengths": lengths[0], "target_lengths": lengths[1], "blank": made.blank,
        "reduction": pick.one(("mean", "sum", "none")), "zero_infinity": bool(pick.whole(0, 1)),
    }  # fmt: skip


def _attempt(arguments: dict[str, Any]) -> tuple[str, Any]:
    """The bits of loss and gradient, or type and text of the error."""
    scores = arguments["log_probs"].detach().requires_grad_(arguments["log_probs"].requires_grad)
    try:
        loss = torch.nn.functional.ctc_loss(**{**arguments, "log_probs": scores})
        gradient = torch.autograd.grad(loss.sum(), scores)[0] if loss.requires_grad else loss
        return "result", tuple(tensor.detach().numpy().tobytes() for tensor in (loss, gradient))
    except Exception as error:  # noqa: BLE001 - any of them is what is looked for
        return type(error).__name__, str(error)


def outcome_of(number: int, pick: Pick, guards: dict[str, Judging]) -> Outcome:
    """One call, through the road that its number says, with a guard of its own or one that sees many."""
    road = ("trained", "judged", "judged", "trained", "stopped")[number % 5]
    made = call(pick, wild=road != "trained")
    if road == "stopped":
        outcome = stopped(made, guards["raise"])
    else:
        judging = guards["one" if number % 2 else "many"]
        outcome = trained(made, judging, pick) if road == "trained" else judged(made, judging)
    outcome.kind = f"{road}: {outcome.kind}"
    return outcome


def guards() -> dict[str, Judging]:
    """Those that `outcome_of` needs."""
    return {"one": Judging(), "many": Judging(per_guard=100), "raise": Judging(on_error="raise")}
