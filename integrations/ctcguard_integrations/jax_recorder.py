"""What was measured in a JAX step, on its way to the guard: by which route, of which step, read when."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any

import jax
import numpy as np

from ctcguard.call import CTCCall
from ctcguard.callsite import call_site
from ctcguard.errors import CTCVerdictError
from ctcguard.guard import Guard
from ctcguard_integrations.jax_call import ALWAYS, Seen, blank_of, of_observed, of_optax
from ctcguard_integrations.jax_measured import Measured, OnHost, Site
from ctcguard_integrations.jax_provenance import provenance
from ctcguard_integrations.jax_queue import LONGEST, Entry, Queue
from ctcguard_integrations.jax_ranks import Ranks
from ctcguard_integrations.jax_seam import Results, Sheet, noticed

_keys = itertools.count(1)
LOOK_S = 0.001
"""What a look takes of the device, which no clock of the host can tell from the step: a round figure for one core of a
CPU (docs/cost.md); a fast device takes less."""
ROUTES = ("auxiliary", "callback", "direct")


class Recorder:
    """Takes what the seam sees to the guard.

    Parameters
    ----------
    guard : Guard
        Judges.

    Attributes
    ----------
    step : int
        Calls of the guarded step that returned.
    blind : bool
        Whether no loss was seen yet, traced or run.
    failed : bool
        Whether the last call of the step raised.
    compiled_earlier : bool
        Whether the step had been compiled for good before it was guarded.
    """

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.step = 0
        self.blind = True
        self.open = True
        self.key = next(_keys)
        self.failed = self.compiled_earlier = False
        self.routes: Counter[str] = Counter(dict.fromkeys(ROUTES, 0))
        settings = guard.settings
        self.urgent = bool({settings.on_error, settings.on_warning} & {"raise", "stop"})
        self._calls_back = False
        self._look: bool | None = None
        self._heads: dict[tuple[int, int], str] = {}
        self._head_checked = False
        self._ids: dict[int, tuple[str, ...]] = {}
        self._queue = Queue(guard.flight.room_bytes)
        self.ranks = Ranks(guard)
        self._lock = threading.RLock()
        guard.end_fields["routes"] = self.routes

    # What the seam tells.

    def calling(self, arguments: dict[str, Any], source: str) -> None:
        """Note the head; one without a class for the blank is judged before the loss fails over it."""
        self.blind = False
        with self.guard.contained(source):
            classes, blank = int(arguments["logits"].shape[-1]), blank_of(arguments)
            self._heads[classes, blank] = source
            if not 0 <= blank < classes:
                self.check_head()

    def check_head(self) -> None:
        """Judge the head, once, if there is only one: as soon as the step is traced, before it is compiled."""
        if self._heads and not self._head_checked:
            self._head_checked = True
            (classes, blank), source = next(iter(self._heads.items()))
            with self.guard.contained(source):
                if len(self._heads) == 1:
                    self.guard.check_setup({"classes": classes, "blank": blank}, source)

    def called(self, arguments: dict[str, Any], source: str, result: Results, sheet: Sheet | None) -> None:
        """Measure the call where it is."""
        with self.guard.contained(source):
            self.ranks.meet(())
            facts = self._facts(source, call_site(2), arguments["logits"])
            self._route(of_optax(arguments, result, **facts), sheet)

    def observe(self, call: dict[str, Any], sheet: Sheet | None) -> None:
        """Measure a loss of the user's own."""
        self.blind = False
        noticed()
        facts: dict[str, Any] = {}
        with self.guard.contained("ctcguard.observe"):
            facts = self._facts("ctcguard.observe", call_site(3), call.get("log_probs", call.get("logits")))
        seen = of_observed(call, **facts)
        with self.guard.contained("ctcguard.observe"):
            self._route(seen, sheet)

    def _facts(self, source: str, site: str, scores: Any) -> dict[str, Any]:
        known = {"framework": "jax", "source": source, "call_site": site, "unknown": self.guard.unknown}
        return known | {"provenance": provenance(scores)}

    def _route(self, seen: Seen, sheet: Sheet | None) -> None:
        if seen.mapped():
            seen.unmapped(lambda whole: self._route(whole, sheet))
            return
        look = sheet.look if sheet is not None and sheet.takes(seen.arrays) else ALWAYS
        measured = self.ranks.readable(seen.measured(self.guard.flight.room_bytes, look))
        if not any(isinstance(array, jax.core.Tracer) for array in jax.tree.leaves(measured)):
            self._queue.add(self._entry(self.step, "direct", measured))
            if self.urgent:
                self.read(wait=True)
        elif sheet is not None and sheet.takes(measured):
            sheet.measured.append(measured)
        else:
            self._calls_back = True
            deliver = partial(_deliver, weakref.ref(self), measured.site)
            jax.debug.callback(deliver, _device(), measured.packed, measured.targets, measured.target_lengths)

    # What the compiled step brings.

    def looks(self, always: bool) -> bool:
        """Whether the scores of the coming step are looked at."""
        if self._look is None:
            self._decide()
        look = bool(always or self._look or self.guard.flight.wanted)
        if look:
            self.guard.clock.spend(LOOK_S)
        return look

    def _decide(self) -> None:
        """Whether the budget allows a look in the next step; a step is a call for the clock."""
        self.guard.arriving()
        self._look = not self.guard.brief

    def returned(self, measured: list[Measured], outputs: Any) -> None:
        """A compiled step was started; ``measured`` and ``outputs`` are there when it is done."""
        self.check_head()
        for each in measured:
            self._queue.add(self._entry(self.step, "auxiliary", each))
        if self._calls_back:
            self._queue.started(self.step, (measured, outputs))
        # While the device is at this step: what is there of earlier ones, and what the next one is asked for.
        self.read(wait=False)
        if self._look is not None:
            self._decide()
        if self.urgent and not self._sound():
            self.settle()

    def _sound(self) -> bool:
        """Whether all that waits may be handed back now and entered later; this waits for the device."""
        if self._calls_back or self.guard.flight.wanted:
            return False
        try:
            return self._queue.sound()
        except jax.errors.JaxRuntimeError:
            return False

    def stepped(self) -> None:
        """The step's outputs are handed back."""
        self.step += 1
        self.guard.steps_taken = self.step
        if self.step == 1 and self.blind:
            self.guard.say_blind(framework="jax", compiled_earlier=self.compiled_earlier)

    def arrived(self, measured: Measured, device: int) -> None:
        """A callback came, in a thread of JAX's: from the oldest step that is not done yet."""
        self._queue.add_once(self._entry(self._queue.running(otherwise=self.step), "callback", measured, device))

    def settle(self) -> None:
        """Judge all; this waits for the device."""
        if self._calls_back:
            jax.effects_barrier()
        self.read(wait=True)

    def read(self, wait: bool) -> None:
        """Judge, in order, what is there; with ``wait``, all. The first verdict that raises does so after the last."""
        verdict = None
        with self._lock:
            for entry in self._queue.due(wait):
                try:
                    self.judge(entry)
                except CTCVerdictError as error:
                    verdict = verdict or error
        if verdict is not None:
            raise verdict

    def judge(self, entry: Entry) -> None:
        """Read one measured call, on each of its devices, and judge it as one of its step."""
        verdict = None
        # A failure of the step itself (out of memory, a debug check) is the user's: he meets it in his own outputs.
        with suppress(jax.errors.JaxRuntimeError):
            packed = np.asarray(entry.measured.packed)
            for index in np.ndindex(*packed.shape[:-1]) if packed.ndim > 1 else ((),):
                try:
                    self._judge(entry, index, packed[index])
                except CTCVerdictError as error:
                    verdict = verdict or error
        if verdict is not None:
            raise verdict

    def _judge(self, entry: Entry, part: tuple[int, ...], packed: np.ndarray[Any, np.dtype[Any]]) -> None:
        """Judge what one device has measured; ``part`` is its place where the arrays are those of all."""
        site, measured, device = entry.measured.site, entry.measured, part[0] if part else entry.device
        with self.guard.contained(site.call.source):
            if self.guard.step != entry.step:
                self.guard.at_step(entry.step)
            self.routes[entry.route] += 1
            make = partial(_with_labels, site, measured.targets, measured.target_lengths, entry.ids, part, device)
            passing = site.passing(packed)
            if passing is not None and self.guard.pass_measured(passing, make):
                return
            case = self.guard.open(make(), "train", early=False)
            case.held = measured.held(part)
            self.guard.judge_readings(case, site.unpacked(packed))

    def name(self, ids: tuple[str, ...]) -> None:
        """Name the utterances of the next step."""
        self._ids = {step: names for step, names in self._ids.items() if step > self.step - LONGEST}
        self._ids[self.step] = ids

    def _entry(self, step: int, route: str, measured: Measured, device: int = 0) -> Entry:
        return Entry(step, route, measured, self._ids.get(step, ()), device)


def _with_labels(
    site: Site, targets: Any, target_lengths: Any, ids: tuple[str, ...], part: tuple[int, ...], device: int
) -> CTCCall:
    """The call of one device with its labels, and the names of its utterances."""
    # A call of only some of the step's utterances (a micro-batch) does not say which.
    named = len(ids) == site.devices * site.batch
    own = ids[device * site.batch : (device + 1) * site.batch] if named else ()
    return site.with_labels(OnHost(targets, part), OnHost(target_lengths, part), own)


def _device() -> Any:
    """Which of the devices of a `jax.pmap` or `jax.shard_map` this is, where each of them calls back for its part."""
    axes = jax.sharding.get_abstract_mesh().manual_axes
    return jax.lax.axis_index(axes) if axes else 0


def _deliver(recorder: weakref.ref[Recorder], site: Site, device: Any, *arrays: Any) -> None:
    found = recorder()
    if found is not None and found.open:
        packed, targets, target_lengths = map(np.asarray, arrays)
        found.arrived(Measured(packed, targets, target_lengths, site), int(device))
