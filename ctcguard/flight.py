"""The flight recorder: what a bad call was given, copied when a rule fires and written by a thread of its own."""

from __future__ import annotations

import _thread
import atexit
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from ctcguard import __version__
from ctcguard._array import Array, HostArray, copied, dtype_name
from ctcguard.call import CTCCall
from ctcguard.case import Case
from ctcguard.errors import SettingsError
from ctcguard.finding import Finding, Severity, Where
from ctcguard.judge import describer
from ctcguard.readings import Readings
from ctcguard.record import (
    HISTORY,
    READING,
    Tensor,
    finding_json,
    plain,
    provenance_json,
    verdict_json,
    vocabulary_json,
    write,
)
from ctcguard.settings import Settings
from ctcguard.verdict import Verdict, verdicts
from ctcguard.vocabulary import Vocabulary

DEADLINE_S = 10.0
"""Longest wait for the thread at the end of a run."""
PACKAGES = ("numpy", "torch", "transformers", "accelerate", "jax", "flax", "optax")
LENGTHS = ("input_lengths", "target_lengths")
OF_CALL = frozenset({"targets", *LENGTHS})
GONE = "no longer there when the call was judged"
PRIVATE = frozenset({"texts", "exact_labels", "exact_log_probs", "exact_end_log_probs"})
"""Readings that tell what was said: left out with ``redact``. So are scores: those of a trained model tell it too."""

Fault = Callable[[str, str, Exception], None]


@dataclass(frozen=True, eq=False)
class Copy:
    """What was copied of a call on the training thread: nothing here changes any more."""

    name: str
    call: CTCCall
    where: Where
    readings: Readings
    findings: tuple[Finding, ...]
    healthy: tuple[tuple[str, tuple[str, ...]], ...]
    kept: tuple[int, ...]
    tensors: Mapping[str, Tensor]
    left_out: Mapping[str, str]
    vocabulary: Vocabulary | None


class FlightRecorder:
    """Writes the first call with each code to the run directory, ``<step>-<code>.safetensors``.

    A call in which several codes are found for the first time is one file, named after the one that is nearest to the
    cause. Information is not recorded.

    Parameters
    ----------
    settings : Settings
        ``record_mb`` and ``redact``. Where they ask for no findings.jsonl, only what is asked for is recorded.
    run_dir : callable
        Says where the files go, when one is written.
    fault : callable
        Told once, with place, kind and exception, when a record could not be made; always on a thread of the training.
    """

    def __init__(self, settings: Settings, run_dir: Callable[[], Path], fault: Fault) -> None:
        self._settings = settings
        self._run_dir = run_dir
        self._fault = fault
        self._limit_bytes = int(settings.record_mb * 1e6)
        self._by_itself = bool(self._limit_bytes) and (settings.sinks == "auto" or "jsonl" in settings.sinks)
        self._rules = {rule.code: plain(rule.model_dump()) for rule in settings.rules()}
        self._seen: set[str] = set()
        self._requests = 0
        self._wanted = False
        self._failed: list[Exception] = []
        self._copies: SimpleQueue[Copy | None] = SimpleQueue()
        self._done: threading.Event | None = None
        self._process = 0

    @property
    def room_bytes(self) -> int:
        """Up to which size scores are held until a call is judged, where they would be gone by then otherwise."""
        return self._limit_bytes if self._by_itself and not self._settings.redact else 0

    def holds(self, case: Case) -> bool:
        """Whether to hold the scores of a call whose readings are still on a device: small ones, in training."""
        scores = case.call.scores
        return case.where.phase == "train" and prod(scores.shape) * _item_bytes(scores) <= self.room_bytes

    @property
    def wanted(self) -> bool:
        """Whether the next call is to be recorded whatever is found in it."""
        return self._wanted

    def request(self) -> None:
        """Record the next call that is judged, whatever the rules say of it.

        Raises
        ------
        SettingsError
            With ``record_mb=0``.
        """
        if not self._limit_bytes:
            raise SettingsError("a call can only be recorded with record_mb above 0")
        self._wanted = True

    def look(self, case: Case, vocabulary: Vocabulary | None) -> None:
        """Copy a call that has a new code or was asked for, and have it written. Its own faults stay here."""
        held, case.held = case.held, None  # a case outlives its arrays
        if not (case.findings or self._wanted or self._failed):
            return
        self._say_faults()
        try:
            name = self._name_of(case)
            if name:
                case.record = name
                self._hand_over(self._copy(name, case, case.call.scores if held is None else held, vocabulary))
        except Exception as error:  # noqa: BLE001 - becomes CTC902
            self._fault("flight record", "capture", error)

    def close(self) -> None:
        """Wait until all is written, but not for ever."""
        done = self._done if self._is_at_work() else None
        self._done = None
        if done is not None:
            atexit.unregister(self.close)
            self._copies.put(None)
            if not done.wait(DEADLINE_S):
                self._failed.append(TimeoutError(f"not written within {DEADLINE_S:g} s"))
        self._say_faults()

    def _say_faults(self) -> None:
        while self._failed:
            self._fault("sink flight record", "sink", self._failed.pop(0))

    def _name_of(self, case: Case) -> str:
        """The file for this call, or nothing. Of a call judged in two parts, the second one completes the file."""
        new = {finding.code for finding in _serious(case)} - self._seen if self._by_itself else set()
        self._seen |= new
        if case.record:
            return case.record
        what = ""
        if new:  # else the verdicts are not needed, and of a step that never ends they are many
            ordered = (f.code for verdict in verdicts(case.findings, case.healthy) for f in verdict.findings())
            what = next((code for code in ordered if code in new), "")
        if self._wanted and not what:
            self._requests += 1
            what = f"request{self._requests}"
        self._wanted = False
        return f"{case.where.step}-{what}.safetensors" if what else ""

    def _copy(self, name: str, case: Case, scores: Array, vocabulary: Vocabulary | None) -> Copy:
        redact = self._settings.redact
        kept: tuple[int, ...] = ()
        columns = {each: _whole(case.readings[each]) for each in LENGTHS if each in case.readings}
        columns |= {"losses": case.readings["losses"]} if "losses" in case.readings else {}
        tensors = {each: Tensor.of(values) for each, values in columns.items()}
        left_out = dict.fromkeys(("scores", "targets", "ids", "texts", "vocabulary"), "redact") if redact else {}
        if not redact:
            tensors |= {each: Tensor(*copied(values)) for each, values in _labels(case.call)}
            if 0 not in scores.shape:
                kept, scores, rows = _first(case, scores, self._limit_bytes)
                tensors["scores"] = Tensor(*copied(scores, rows))
            gone = {"scores", "targets"} - tensors.keys()
            left_out |= dict.fromkeys(sorted(gone), GONE)
        return Copy(
            name=name,
            call=_on_host(case.call, {each: tensor.values for each, tensor in tensors.items()}),
            where=case.where,
            readings=_own(case.readings.settled()),
            findings=tuple(case.findings),
            healthy=tuple(case.healthy),
            kept=kept,
            tensors=tensors,
            left_out=left_out,
            vocabulary=None if redact else vocabulary,
        )

    def _hand_over(self, copy: Copy) -> None:
        if not self._is_at_work():
            copies: SimpleQueue[Copy | None] = SimpleQueue()
            done = threading.Event()
            try:
                # threading.Thread.start waits until the thread has run, which may take long where all cores are busy.
                _thread.start_new_thread(self._work, (copies, done))
            except RuntimeError:  # the interpreter is closing and starts no more threads
                self._write(copy)
                return
            self._copies, self._done, self._process = copies, done, os.getpid()
            atexit.register(self.close)
        self._copies.put(copy)

    def _is_at_work(self) -> bool:
        """Whether there is a thread; a fork of the process has none."""
        return self._done is not None and self._process == os.getpid()

    def _work(self, copies: SimpleQueue[Copy | None], done: threading.Event) -> None:
        while (copy := copies.get()) is not None:
            self._write(copy)
        done.set()

    def _write(self, copy: Copy) -> None:
        try:
            tensors, numbers, left_out = _readings(copy.readings, self._settings.redact)
            about = self._about(copy) | {"readings": numbers, "left_out": {**copy.left_out, **left_out}}
            write(self._run_dir() / copy.name, about, {**tensors, **copy.tensors}, self._limit_bytes)
        except Exception as error:  # noqa: BLE001 - becomes CTC902, at the next call or at the end
            self._failed.append(error)

    def _about(self, copy: Copy) -> dict[str, Any]:
        """The JSON of the metadata; readings and what was left out are added to it."""
        settings = self._settings
        batch, names = range(copy.call.batch), () if settings.redact else copy.call.utterance_ids
        describe = describer(copy.call, copy.vocabulary, redact="targets" not in copy.tensors)
        return {
            "ctcguard": __version__,
            "versions": _versions(),
            "time": time.time(),
            "where": {**copy.where.model_dump(mode="json"), "ranks": copy.where.ranks},
            "provenance": provenance_json(copy.call.provenance),
            "unknown": copy.call.unknown,
            "settings": plain(settings.model_dump(exclude={"vocabulary"})),
            "rules": self._rules,
            "findings": [finding_json(finding) for finding in copy.findings],
            "verdicts": [verdict_json(self._with_action(v)) for v in verdicts(copy.findings, copy.healthy)],
            "healthy": plain(copy.healthy),
            "kept": list(copy.kept),
            "ids": [names[index] if index < len(names) else None for index in batch],
            "texts": [describe(index).text for index in batch],
            "vocabulary": vocabulary_json(copy.vocabulary),
        }

    def _with_action(self, verdict: Verdict) -> Verdict:
        worst = min((finding.severity for finding in verdict.findings()), key=lambda severity: severity.rank)
        return verdict.model_copy(update={"action": self._settings.action(worst, verdict.root.phase)})


def _serious(case: Case) -> list[Finding]:
    return [finding for finding in case.findings if finding.severity is not Severity.INFORMATION]


def _whole(lengths: HostArray) -> HostArray:
    """Lengths as int64, unless they are fractions or no numbers."""
    whole = bool((np.abs(lengths) < 2**53).all()) and bool((lengths == np.floor(lengths)).all())
    return lengths.astype(np.int64) if whole else lengths


def _on_host(call: CTCCall, arrays: Mapping[str, HostArray]) -> CTCCall:
    """The call with labels and lengths only, as they were copied."""
    known: dict[str, Any] = {name: arrays[name] for name in ("targets", *LENGTHS) if name in arrays}
    return replace(call.without_arrays(), **known)


def _labels(call: CTCCall) -> Iterator[tuple[str, Array]]:
    for name in ("targets", "given_labels"):
        values = getattr(call, name)
        if values is not None and getattr(values, "is_whole", True):  # JAX may have parts in other processes
            yield name, values


def _first(case: Case, scores: Array, limit_bytes: int) -> tuple[tuple[int, ...], Array, tuple[int, ...] | None]:
    """Which utterances there is room for, those concerned first; their frames; and which rows, if not all."""
    batch, frames, classes = map(int, scores.shape)
    of_frame = classes * _item_bytes(scores)
    room = limit_bytes // (of_frame * frames)
    if room >= batch:
        return tuple(range(batch)), scores, None
    if not room:
        scores, room = scores[:, : max(1, limit_bytes // of_frame), :], 1
    serious = _serious(case)
    named = [utterance.index for finding in serious for utterance in finding.utterances]
    affected = sorted(index for finding in serious for index in finding.affected)
    kept = tuple(dict.fromkeys([*named, *affected, *range(batch)]))[:room]
    return kept, scores, kept


def _own(readings: Readings) -> Readings:
    """The readings, with arrays that nobody else has."""
    copies: dict[str, Any] = {name: value.copy() for name, value in readings.items() if isinstance(value, np.ndarray)}
    if "history" in readings:
        copies["history"] = {name: column.copy() for name, column in readings["history"].items()}
    return readings.with_values(copies)


def _item_bytes(array: Array) -> int:
    name = dtype_name(array)
    return 2 if name == "bfloat16" else np.dtype(name).itemsize


def _readings(readings: Readings, redact: bool) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, str]]:
    """Readings as tensors and as JSON, and those that are neither."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, value in readings.items():
        if name in ("provenance", "vocabulary"):
            continue
        if redact and name in PRIVATE:
            left_out[READING + name] = "redact"
        elif name == "history":
            tensors |= {HISTORY + column: Tensor.of(values) for column, values in value.items()}
        elif isinstance(value, np.ndarray):
            tensors[READING + name] = Tensor.of(value)
        else:
            numbers[name] = plain(value)
    return tensors, numbers, left_out


def _versions() -> dict[str, str]:
    """Of Python, and of what the program has imported."""
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in PACKAGES}
    return {"python": platform.python_version(), **{name: str(v) for name, v in found.items() if v}}
