"""Several processes that train together: one voice on the console and in alerts, and one step at which all stop.

They exchange short texts over the key-value store that the framework has set up already. Nothing here is a collective:
a rank that asks never waits for one that does not, so ranks with uneven numbers of batches cannot block each other.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

from ctcguard import last_exit
from ctcguard.background import on_thread
from ctcguard.errors import CTCVerdictError
from ctcguard.finding import Finding
from ctcguard.job import Job
from ctcguard.ranks import Place
from ctcguard.reporter import Reporter
from ctcguard.sinks import Sink
from ctcguard.verdict import Verdict
from ctcguard.wire import from_text, to_text

INTERVAL, RANKS_A_STEP = 16, 128
"""Steps between two looks at whether to stop; in a large job, one for so many ranks (docs/scale.md)."""
DEADLINE_S = 5.0
"""Longest wait for an answer of the store; and for the rank that shows a verdict before it is raised."""
CLOSE_S = 2.0
"""Longest wait, at the end of a run, for what the other ranks find last."""
HEAR_S = 1.0
"""Longest wait for the rank whose loss made a gradient bad that all ranks see; once for each cause."""
LISTEN_S, PAUSE_S, PAUSE_A_RANK_S = 0.25, 0.02, 1e-4
"""Time between two looks: of a listener, and of a rank that waits; longer in a large job, where all may wait."""

Answer = TypeVar("Answer")


class Store(Protocol):
    """A key-value store that all ranks reach. No call waits for another rank."""

    def put_once(self, key: str, text: str) -> bool:
        """Write, unless the key is there; whether this call wrote it."""

    def get(self, key: str) -> str | None:
        """The text, or None."""

    def add(self, key: str, amount: int) -> int:
        """Add to a number that starts at 0; the sum."""


class Team(Job):
    """One of several ranks.

    Of each cause, the first rank that finds it writes its verdict to the store. Rank 0 shows it, and a rank with an
    active alert sink (a run of wandb) sends it: they listen, on a thread, for they may be waiting inside a collective.
    Every rank writes its own findings file whatever the others do.

    Parameters
    ----------
    store : Store
        For this guard alone.
    place : Place
        Which rank this is.
    reporter : Reporter
        Of this rank.

    Attributes
    ----------
    count : int
        Steps of one optimizer: the same number on all ranks at the same step.
    interval : int
        Steps between two looks at whether to stop.
    second_hand_s : float
        Where all ranks find the same: how long one that cannot read the utterances waits for one that can.
    """

    second_hand_s = 0.0

    def __init__(self, store: Store, place: Place, reporter: Reporter) -> None:
        self.place = place
        self.count = 0
        self.interval = max(INTERVAL, -(-place.ranks // RANKS_A_STEP))
        self._pause_s = PAUSE_S + place.ranks * PAUSE_A_RANK_S
        self._store = store
        self._reporter = reporter
        self._may_stop = "stop" in (reporter.settings.on_error, reporter.settings.on_warning)
        self._looked = -1
        self._keys: dict[tuple[str, str], str] = {}
        self._open: dict[str, Verdict] = {}
        self._read = self._heard = 0
        self._broken = False
        self._closed = threading.Event()
        self._delivery = threading.Lock()
        self._listener: threading.Thread | None = None
        if self._alerting():
            self._ask(partial(store.put_once, "alerting", str(place.rank)), False)
        if place.rank == 0 or self._alerting():
            self._listener = threading.Thread(target=self._listen, name="ctcguard-ranks", daemon=True)
            self._listener.start()

    # What the reporter asks.

    def heard(self, wait: bool = False) -> list[Finding]:
        """Findings of verdicts that other ranks posted: a NaN that came with their gradients is no news here."""
        deadline = time.monotonic() + wait * HEAR_S
        nothing: list[Finding] = []
        found = self._ask(self._posted, nothing)
        while not found and time.monotonic() < deadline and not self._broken:
            time.sleep(self._pause_s)
            found = self._ask(self._posted, nothing)
        return found

    @contextmanager
    def announcing(self, verdict: Verdict) -> Iterator[Callable[[Sink], bool]]:
        """Post the verdict. The first rank with this cause tells its sinks; rank 0 alone tells the console."""
        if verdict.action == "log":
            yield lambda _: True
            return
        worst = min((finding.severity for finding in verdict.findings()), key=lambda severity: severity.rank)
        key = f"{verdict.code}/{verdict.cause}/{worst.value}"
        if self.second_hand_s and all(item.labels is None for item in verdict.root.utterances):
            time.sleep(self.second_hand_s)
        first = self._ask(partial(self._post, key, verdict), True)
        self._keys[verdict.code, verdict.cause] = key
        desk = self.place.rank == 0 or self._broken
        if first and not desk:
            self._open[key] = verdict
        yield lambda sink: first and (desk or sink.name != "console")
        if first and desk:
            self._ask(partial(self._store.put_once, f"{key}/shown", str(self.place.rank)), False)
        if first and self._alerting():
            self._ask(partial(self._store.put_once, f"{key}/sent", str(self.place.rank)), False)

    def leaving(self, error: CTCVerdictError) -> None:
        """Wait until the verdict has been shown, or show it here; from then on, the process has little time left."""
        verdict = error.verdict
        consoles = self._consoles()
        key = self._keys.get((verdict.code, verdict.cause))
        if not self._await(key, DEADLINE_S + 10 * self._pause_s):
            self._show(consoles, verdict)
        self._open.pop(key or "", None)
        if consoles:  # the interpreter prints the exception: short, for the verdict is on the screen
            error.args = (f"{verdict.headline()} (the verdict is shown once for all ranks)",)
        last_exit.arm(self.place.rank)

    def stops(self, verdict: Verdict) -> bool:
        """Agree on a step that no rank can have passed, if they meet in every step: the next at which all look."""
        at = (self.count // self.interval + 1) * self.interval
        self._ask(partial(self._store.put_once, "stop", f"{at} {self._message(verdict)}"), False)
        return True

    def poll(self) -> None:
        """Look, once in an interval, whether to stop.

        Raises
        ------
        CTCStop
            At the same step on all ranks, where nothing else ends the training.
        """
        if not self._may_stop or self.count % self.interval or self._looked == self.count:
            return
        self._looked = self.count
        text = self._ask(partial(self._store.get, "stop"), None)
        at, _, message = (text or "").partition(" ")
        if message and int(at) <= self.count:
            self._reporter.stop_now(_verdict(message)[1])

    def counted(self) -> None:
        """The optimizer whose steps are counted has stepped."""
        self.count += 1

    def close(self) -> None:
        """Deliver what others found last; show here what was found here and nobody has shown."""
        if self._closed.is_set() or self._broken:
            self._closed.set()
            return
        self._ask(partial(self._store.add, "closed", 1), 0)
        deadline = time.monotonic() + CLOSE_S
        if self._listener is None:
            for key, verdict in self._open.items():
                if not self._await(key, deadline - time.monotonic()):
                    self._show(self._consoles(), verdict)
        else:
            closed = partial(self._store.add, "closed", 0)
            while time.monotonic() < deadline and self._ask(closed, self.place.ranks) < self.place.ranks:
                time.sleep(self._pause_s)
            self._ask(self._deliver, None)
        self._closed.set()

    # How they are answered.

    def _post(self, key: str, verdict: Verdict) -> bool:
        """Write the verdict, say who tells of it, and then that it is there; False if another rank was first."""
        if not self._store.put_once(key, self._message(verdict)):
            return False
        if self.place.rank == 0:
            self._store.put_once(f"{key}/showing", "0")
        if self._alerting():
            self._store.put_once(f"{key}/sending", str(self.place.rank))
        self._store.put_once(f"cause-{self._store.add('causes', 1)}", key)
        return True

    def _posted(self) -> list[Finding]:
        found: list[Finding] = []
        while (key := self._store.get(f"cause-{self._heard + 1}")) is not None:
            self._heard += 1
            rank, verdict = _verdict(self._store.get(key) or "")
            if rank != self.place.rank:  # in which utterances of its own batch says nothing about ours
                found += [finding.model_copy(update={"affected": frozenset()}) for finding in verdict.findings()]
        return found

    def _message(self, verdict: Verdict) -> str:
        return json.dumps([self.place.rank, to_text(verdict)])

    def _listen(self) -> None:
        while not self._closed.wait(LISTEN_S) and not self._broken:
            try:
                self._deliver()
            except Exception as error:  # noqa: BLE001 - becomes CTC902, unless the run is over and the store with it
                if not self._closed.is_set():
                    self._fail(error)

    def _deliver(self) -> None:
        """Tell of the verdicts of other ranks that came since the last look."""
        with self._delivery:
            while (key := self._store.get(f"cause-{self._read + 1}")) is not None:
                self._read += 1
                rank, verdict = _verdict(self._store.get(key) or "")
                if rank != self.place.rank:
                    self._tell(key, verdict)

    def _tell(self, key: str, verdict: Verdict) -> None:
        mine = str(self.place.rank)
        if self.place.rank == 0 and self._store.put_once(f"{key}/showing", mine):
            self._show(self._consoles(), verdict)
            self._store.put_once(f"{key}/shown", mine)
        if self._alerting() and self._store.put_once(f"{key}/sending", mine):
            self._show(self._alerting(), verdict)
            self._store.put_once(f"{key}/sent", mine)

    def _await(self, key: str | None, seconds: float) -> bool:
        """Whether a verdict was shown, and sent where a rank can send it, before the time is over."""
        deadline = time.monotonic() + seconds
        shown = False
        while key is not None and not self._broken:
            shown, sent = self._ask(partial(self._told, key), (False, False))
            if (shown and sent) or time.monotonic() >= deadline:
                break
            time.sleep(self._pause_s)
        return shown

    def _told(self, key: str) -> tuple[bool, bool]:
        shown, sent = (self._store.get(f"{key}/{done}") is not None for done in ("shown", "sent"))
        return shown, sent or self._store.get("alerting") is None

    def _show(self, sinks: list[Sink], verdict: Verdict) -> None:
        for sink in sinks:
            self._reporter.show(sink, verdict)

    def _consoles(self) -> list[Sink]:
        return [sink for sink in self._reporter.sinks if sink.name == "console"]

    def _alerting(self) -> list[Sink]:
        """The sinks of this rank that can send an alert now."""
        return [sink for sink in self._reporter.sinks if getattr(sink, "active", False)]

    def _ask(self, question: Callable[[], Answer], otherwise: Answer) -> Answer:
        """Ask the store; a failure or a long silence ends the exchange, never the training."""
        if self._broken:
            return otherwise
        try:
            return on_thread(question, "ctcguard-store").result(DEADLINE_S)
        except Exception as error:  # noqa: BLE001 - becomes CTC902
            self._fail(error)
            return otherwise

    def _fail(self, error: Exception) -> None:
        self._broken = True
        self._reporter.fault("exchange with other ranks", "capture", error)


def _verdict(message: str) -> tuple[int, Verdict]:
    rank, text = json.loads(message)
    return int(rank), from_text(text)
