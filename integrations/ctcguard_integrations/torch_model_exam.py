"""Whether the output for an utterance depends on chance, on its neighbours or on padding: passes compared."""

from __future__ import annotations

from typing import Any

import numpy as np

from ctcguard._array import HostArray, to_numpy
from ctcguard.probes.model import ROUNDING, frame_changes, spread
from ctcguard_integrations.torch_model_inputs import Inputs, UnsuitableError
from ctcguard_integrations.torch_model_passes import Pass, Passes
from ctcguard_integrations.torch_model_random import likeliest
from ctcguard_integrations.torch_model_trace import parting

EDGE_FRAMES = 8
"""Frames of padding behind which an utterance is judged: convolutions look a few frames ahead, and may."""
LONGER = 4
"""One part in so many is appended to the time axis."""
BLIND = 2
"""Outputs must differ from frame to frame by so many times the rounding, or nothing could be seen."""


class Examination:
    """Two passes when all is well; when valid frames of an utterance differ, more of them tell what it depends on.

    Parameters
    ----------
    passes : Passes
        Runs the model.
    inputs : Inputs
        Its arguments.
    frames : int
        Length of the time axis of the CTC call.
    valid_frames : array of int, (batch,)
        Its input lengths.
    blank : int
        Its blank.

    Attributes
    ----------
    readings : dict
        For CTC801, CTC802 and CTC803. What was not tried is absent.
    left_out : list of str
        What was not tried, and why.
    """

    def __init__(self, passes: Passes, inputs: Inputs, frames: int, valid_frames: HostArray, blank: int) -> None:
        self._passes, self._inputs, self._frames, self._blank = passes, inputs, frames, blank
        self._valid = valid_frames.clip(0, frames).astype(np.int64)
        self._as_is = list(range(len(valid_frames)))
        self._others = [row // 2 * 2 for row in self._as_is]  # in order, for some models want sorted lengths
        self._followed = min(self._others, key=lambda row: self._valid[row])
        self._extra = self._more = 0
        self._limit = 0.0
        self.readings: dict[str, Any] = {}
        self.left_out: list[str] = []

    def run(self) -> None:
        """Fill in the readings.

        Raises
        ------
        UnsuitableError
            When the model refuses its own batch, or its output is nearly the same in every frame.
        """
        first, second = self._first_two()
        self._take_limit(first)
        changes, judged = self._changes(first, second, self._others), self._judged()
        if self._is_rounding(changes[judged]):
            self._say("repeat_change", changes[judged], judged)
            if len(self._as_is) > 1:
                self._say("neighbour_change", changes[judged], judged)
        elif not self._repeats(first) or not self._stays_apart(first, second):
            return
        if self._more:
            self._compare_padding(first, second, changes, judged)

    def _first_two(self) -> tuple[Pass, Pass]:
        """The batch as it is, and one with all changes at once; without more padding where that cannot be had."""
        if len(self._as_is) == 1:
            self.left_out.append("neighbours not changed: there was one utterance")
        first = None
        try:
            self._plan_padding()
            first = self._passes.run(self._as_is, self._extra, self._followed)
            second = self._passes.run(self._others, self._more, self._followed)
            if self._more and not self._grew(first, second):
                raise UnsuitableError("the output does not grow with the features")
        except UnsuitableError as reason:
            self.left_out.append(f"padding not changed: {reason}")
            first = self._passes.run(self._as_is, 0, self._followed) if first is None or self._extra else first
            self._extra = self._more = 0
            second = self._passes.run(self._others, 0, self._followed)
        return first, second

    def _plan_padding(self) -> None:
        """How much to append in the first and in the second pass."""
        if not self._inputs.knows_padding:
            raise UnsuitableError("the batch has none, and the model is not told lengths")
        if not self._judged().any():
            self._extra = self._inputs.extra(self._frames, EDGE_FRAMES)
        before = -(-self._extra * self._frames // self._inputs.width)
        self._more = self._inputs.extra(self._frames, before + max(EDGE_FRAMES, self._frames // LONGER))

    def _grew(self, first: Pass, second: Pass) -> bool:
        """Whether the time axis was the right one; fast paths of torch cut the output to the longest valid length."""
        before, after = first.scores.shape[1], second.scores.shape[1]
        return after > before or (self._inputs.told and after >= self._valid[self._others].max())

    def _judged(self) -> HostArray:
        """Rows of the second pass that are compared: when it has more padding, those that had some before."""
        if self._extra or not self._inputs.knows_padding:
            return np.ones(len(self._as_is), bool)
        return self._frames - self._valid[self._others] >= EDGE_FRAMES

    def _take_limit(self, first: Pass) -> None:
        whole, over_frames = (float(value) for value in spread(first.scores, self._valid))
        precision = self._passes.precision(first)
        self._limit = ROUNDING[precision] * whole
        if not over_frames > BLIND * self._limit:
            raise UnsuitableError(f"its output differs from frame to frame by no more than rounding ({precision})")
        self.readings = {
            "output_limit": self._limit,
            "output_unit": "nats" if first.are_log_probs else "in the unit of its output",
            "output_precision": precision,
        }

    def _changes(self, before: Pass, after: Pass, rows: list[int]) -> HostArray:
        """Change of every frame, (batch, time), where utterance ``rows[i]`` is in row i of the second one."""
        return to_numpy(frame_changes(before.scores[rows], after.scores, self._valid[rows]))

    def _is_rounding(self, changes: HostArray) -> bool:
        return bool((changes <= self._limit).all())

    def _say(self, name: str, changes: HostArray, chosen: HostArray) -> None:
        """The largest change of every utterance, (batch,); 0 for those that were not compared."""
        column = np.zeros(len(self._as_is))
        np.maximum.at(column, np.asarray(self._others)[chosen], changes.max(1, initial=0))
        self.readings[name] = column

    def _repeats(self, first: Pass) -> bool:
        """The same batch again: whether the same comes out of it."""
        again = self._passes.run(self._as_is, self._extra, self._followed, look_for_random=True)
        changes = self._changes(first, again, self._as_is)
        self.readings["repeat_change"] = changes.max(1, initial=0)
        if self._is_rounding(changes):
            return True
        draw = likeliest(again.draws)
        if draw is not None:
            self.readings |= {"random_draw": draw.operation, "random_place": draw.place, "random_site": draw.site}
            self.readings["random_in_training_mode"] = draw.place in again.trace.training
        return False

    def _stays_apart(self, first: Pass, second: Pass) -> bool:
        """Other neighbours, the same padding: whether the same comes out for an utterance."""
        if len(self._as_is) == 1:
            return True
        alone = self._passes.run(self._others, self._extra, self._followed) if self._more else second
        changes = self._changes(first, alone, self._others)
        self._say("neighbour_change", changes, np.ones(len(changes), bool))
        if self._is_rounding(changes):
            return True
        self._say_place(first, alone)
        self.readings["reshape"] = first.trace.swap
        return False

    def _compare_padding(self, first: Pass, second: Pass, changes: HostArray, judged: HostArray) -> None:
        self._say("padding_change", changes[judged], judged)
        valid = self._valid[self._others]
        self.readings |= {
            "padding_changed_fraction": (~(changes[judged] <= self._limit)).sum() / max(1, valid[judged].sum()),
            "padding_frames": second.scores.shape[1] - first.scores.shape[1],
            "edge_change": changes[~judged].max(initial=0),
            "unpacked_rnn": first.trace.unpacked,
        }
        if second.are_log_probs:
            before, after = self._decodings(first, self._as_is), self._decodings(second, self._others)
            rows = judged.nonzero()[0]
            changed = {self._others[row] for row in rows if before[self._others[row]] != after[row]}
            compared = {self._others[row] for row in rows}
            self.readings |= {"decodings_changed": len(changed), "decodings_compared": len(compared)}
        if not self._is_rounding(changes[judged]):
            self._say_place(first, second)

    def _decodings(self, done: Pass, rows: list[int]) -> list[list[int]]:
        """Greedy decoding of every row: repeats merged, blanks removed."""
        paths = to_numpy(done.scores.argmax(2)).astype(int)
        valid = [path[:count] for path, count in zip(paths, self._valid[rows], strict=True)]
        merged = [path[np.flatnonzero(np.diff(path, prepend=-1))] for path in valid]
        return [path[path != self._blank].tolist() for path in merged]

    def _say_place(self, first: Pass, second: Pass) -> None:
        fraction = float(self._valid[self._followed]) / first.scores.shape[1]
        found = parting(first.trace, second.trace, fraction, ROUNDING[self.readings["output_precision"]])
        if found is None:
            return
        event, inside = found
        attention = getattr(event.module, "self_attn", None)  # a layer of torch's transformer takes what this takes
        self.readings |= {
            "parting_place": event.place,
            "parting_module": type(event.module).__name__,
            "parting_parent": event.parent,
            "parting_inside": inside,
            "batch_first": getattr(event.module, "batch_first", getattr(attention, "batch_first", None)),
            "batch_axis": event.batch_axis,
        }
