"""The one object with memory of a run: counts steps, judges calls. Its own faults stay here."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ctcguard._array import Array
from ctcguard.call import CTCCall
from ctcguard.case import Case, Passing, summary, worst_of
from ctcguard.clock import Clock, Contained
from ctcguard.depth import Depth, depth_of, exact
from ctcguard.finding import SCHEMA, Finding, Phase, Where
from ctcguard.flight import FlightRecorder
from ctcguard.heads import Heads
from ctcguard.history import History
from ctcguard.job import Job
from ctcguard.judge import describer, facts, judge
from ctcguard.packing import Layout, unpack
from ctcguard.probes import contract
from ctcguard.ranks import launched
from ctcguard.readings import NOTHING, Later, Readings
from ctcguard.reporter import Reporter
from ctcguard.rules import GuardBlind, Rule
from ctcguard.settings import Settings
from ctcguard.sinks import SendsFiles, Sink
from ctcguard.sinks.console import ConsoleSink
from ctcguard.sinks.jsonl import JsonLines
from ctcguard.sinks.timeline import Timeline
from ctcguard.sound import Given, glimpse, sound, sound_losses
from ctcguard.verdict import Verdict, explains
from ctcguard.vocabulary import Vocabulary

BLIND_STEPS = 100
"""Optimizer steps without a call after which CTC901 is said; else at the end."""
LASTING = ("minus_inf_fraction",)
"""Readings of a call that was looked at which are taken to hold until the next look: masks belong to a head."""
NOT_PROBED = "not run: no optimizer of torch stepped after a training call"


class Guard:
    """Judges the CTC calls of one training run.

    Parameters
    ----------
    settings : Settings
        What to check and how to react.
    sinks : iterable of Sink
        Told in addition to those of ``settings.sinks``.
    default_dir : Path, optional
        The run directory when the settings name none.

    Attributes
    ----------
    step, micro_step : int
        Optimizer steps taken, and training calls since the last one.
    calls : int
        CTC calls seen, evaluation too.
    aware : bool
        Whether a loss was seen by a guard inside of this one, which is not blind then.
    end_fields : dict
        What an integration adds to the last line of findings.jsonl.
    """

    def __init__(self, settings: Settings, sinks: Iterable[Sink] = (), default_dir: Path | None = None) -> None:
        self.settings = settings
        self.vocabulary: Vocabulary | None = settings.vocabulary
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        self.job_dir = (settings.run_dir or default_dir or Path("ctcguard-runs") / stamp).absolute()
        self.place = launched()
        self._file = JsonLines(self._findings_file())
        self.step = self.micro_step = self.calls = self.steps_taken = 0
        self.reporter = Reporter(settings, [*self._own_sinks(), *sinks])
        for sink in self.reporter.sinks:
            if isinstance(sink, SendsFiles) and not settings.redact:
                sink.files_of_run = lambda: self.run_dir
        self.flight = FlightRecorder(settings, lambda: self.run_dir, self.reporter.fault)
        self.aware = False
        self.end_fields: dict[str, Any] = {"probe_model": NOT_PROBED} if settings.probe_model else {}
        self.clock = Clock(settings.budget)
        self._moved = self._brief = self._whole_due = False
        self._step_cases: list[Case | Passing] = []
        self._lasting: dict[str, Any] = {}
        self._plans: dict[tuple[Any, ...], list[Rule]] = {}
        self._heads = Heads()
        self._history = History()
        self._utterance_ids: tuple[str, ...] = ()
        self._lock = threading.RLock()

    def _own_sinks(self) -> Iterator[Sink]:
        wanted = self.settings.sinks
        if wanted == "auto" or "jsonl" in wanted:
            yield from (self._file, Timeline(lambda: self.run_dir))
        if wanted == "auto" or "console" in wanted:
            yield ConsoleSink()

    @property
    def run_dir(self) -> Path:
        """Where files of this process go: one of several ranks has a folder of its own in that of the job."""
        return self.place.folder(self.job_dir)

    def _findings_file(self) -> Path:
        given = (self.settings.findings or self.job_dir / "findings.jsonl").absolute()
        return self.place.folder(given.parent) / given.name

    def join(self, job: Job, job_dir: Path) -> None:
        """Other ranks were met. What is written from now on goes into a folder below that of the job."""
        self.place, self.job_dir, self.reporter.job = job.place, job_dir, job
        self._file.path = self._findings_file()

    @property
    def findings(self) -> list[Finding]:
        """What was found so far, information too; of one code and cause, the first hundred."""
        return self.reporter.findings

    @property
    def verdicts(self) -> list[Verdict]:
        """One for each root cause announced so far."""
        return self.reporter.verdicts

    def batch(self, ids: Iterable[object]) -> None:
        """Name the utterances of the coming calls, until the next optimizer step; findings then show these names."""
        self._settle_step()
        self._utterance_ids = tuple(str(name) for name in ids)

    def record(self) -> None:
        """Keep the next call that is judged, whatever is found in it, as a flight record in the run directory."""
        self.flight.request()

    def check_setup(self, values: Mapping[str, Any], source: str) -> None:
        """Judge what is known before the first call: ``classes``, ``blank``, ``config_vocab_size``."""
        known = {} if self.vocabulary is None else {"vocabulary": self.vocabulary}
        where = Where(phase="setup", step=self.step, source=source, **self.place._asdict())
        rules = [rule for rule in self._rules() if rule.is_setup()]
        values = {**values, "texts": ()} if self.settings.redact and "texts" in values else values
        findings, healthy = judge(rules, Readings({**known, **values}), where, self._rule_fault)
        self._heads.judged(values.get("classes"), values.get("blank"))
        self.reporter.report(findings, healthy)

    def check_heads(self, source: str) -> None:
        """Before the first update: hold the vocabulary against the head of the calls so far, once."""
        head = self._heads.settle()
        if head is not None and self.vocabulary is not None:
            self.check_setup({"classes": head[0], "blank": head[1]}, source)

    def arriving(self) -> None:
        """A call begins: the step that was taken before it is over, and the clock decides how this one is measured."""
        with self._lock:
            self._settle_step()
            self.clock.called()
            wanted = exact(self.calls + 1) or self.flight.wanted or (self.settings.probe_model and not self.steps_taken)
            self._brief = self.clock.over_budget and not wanted

    @property
    def brief(self) -> bool:
        """Whether the call at hand is only measured further if it is not sound at a glimpse."""
        return self._brief

    def look(self) -> None:
        """Measure the call at hand further whatever the budget says."""
        self._brief = False

    def glimpse(self, given: Given, make: Callable[[], CTCCall], phase: Phase) -> Passing | None:
        """Take in a call on the host that is sound; None, and it is not taken, for any other.

        ``make`` makes the `CTCCall`, without its scores, if somebody asks for it.
        """
        seen = glimpse(given)
        if seen is None:
            return None
        with self._lock:
            passing = Passing(make, phase, self.step, self.micro_step, seen)
            self._saw(passing, phase, given.shape[2], given.blank)
            return passing

    def let_pass(self, passing: Passing, losses: Sequence[float]) -> bool:
        """Whether it is sound with its losses too: then nothing more is to be done."""
        if not sound_losses(losses):
            return False
        passing.seen["losses"] = losses
        with self._lock:
            self._remember(passing)
        return True

    def pass_measured(self, found: dict[str, Any], make: Callable[[], CTCCall]) -> bool:
        """Whether a training call that was measured in short elsewhere is sound: then nothing more is to be done.

        ``found`` has what `ctcguard.sound.glimpse` returns, and the losses where they are known; ``make`` makes the
        `CTCCall`, if somebody asks for it.
        """
        if self.flight.wanted or not sound(found) or ("losses" in found and not sound_losses(found["losses"])):
            return False
        with self._lock:
            passing = Passing(make, "train", self.step, self.micro_step, found)
            self._saw(passing, "train", found["classes"], found["blank"])
            self._remember(passing)
        return True

    def _remember(self, passing: Passing) -> None:
        """A sound training call is a row of the history; from time to time the whole of that is looked at."""
        if passing.phase != "train":
            return
        self._history.add_lengths(passing.seen["frames"], max(passing.seen["input_lengths"]))
        if self._history.add(passing.step, passing.seen):
            self._whole_due = True
            case = self._case_of(passing)
            self.check_case(case, {"history": self._history.columns()}, case.call.source)

    def reopen(self, passing: Passing, call: CTCCall) -> Case:
        """It is not sound: from here on it is a call like any other."""
        with self._lock:
            case = self._new_case(call, passing.phase, passing.step, passing.micro_step)
            self._step_cases = [case if each is passing else each for each in self._step_cases]
            return case

    def open(self, call: CTCCall, phase: Phase, early: bool) -> Case:
        """Take in a call; with ``early``, judge its targets and lengths before the loss is computed."""
        with self._lock:
            case = self._new_case(call, phase, self.step, self.micro_step)
            self._saw(case, phase, call.classes, call.blank)
            if early:
                self._judge(case, contract(case.call))
                self._react_early(case)
            return case

    def _saw(self, taken: Case | Passing, phase: Phase, classes: int, blank: int) -> None:
        """A call was taken in."""
        self.calls += 1
        if phase == "train":
            self._heads.saw(classes, blank)
            self.micro_step += 1
            self._step_cases.append(taken)

    def _new_case(self, call: CTCCall, phase: Phase, step: int, micro_step: int) -> Case:
        """A call with its place in the run, and with what is known of it."""
        if self._utterance_ids and not call.utterance_ids:
            call = call.with_ids(self._utterance_ids)
        if call.unknown is None and self.unknown is not None:
            call = call.with_unknown(self.unknown)
        where = self._where(phase, step, micro_step, call.framework, call.source, call.call_site)
        describe = describer(call, self.vocabulary, self.settings.redact)
        return Case(call, where, Readings(facts(call, self.vocabulary), describe))

    def _case_of(self, passing: Passing) -> Case:
        """A call that passed, with all that was seen of it, and with what a call before it showed of the head."""
        case = self._new_case(passing.make(), passing.phase, passing.step, passing.micro_step)
        case.readings = case.readings.with_values({**self._lasting, **passing.readings()})
        return case

    @property
    def unknown(self) -> int | None:
        """Index of the symbol that stands for whatever the vocabulary lacks."""
        return None if self.vocabulary is None else self.vocabulary.unknown

    def depth(self, call: CTCCall) -> Depth:
        """What to measure of the scores and losses of the call at hand."""
        return depth_of(call, self.calls, self._brief)

    def judge(self, case: Case, packed: Array, layout: Layout) -> None:
        """Read what was measured on a device, judge it together with what is known of the case already, and react."""
        self.judge_readings(case, unpack(packed, layout))

    def judge_readings(self, case: Case, values: Mapping[str, Any], later: Later = NOTHING) -> None:
        """Judge what was measured together with what is known of the case already, and react.

        ``later`` measures further readings if a rule asks for them; afterwards it is forgotten.
        """
        with self._lock:
            self._judge(case, values, later, last=True)
            self.flight.look(case, self.vocabulary)
            case.readings, case.call = case.readings.settled(), case.call.without_arrays()
            self._lasting = {name: case.readings[name] for name in LASTING if name in case.readings}
            if case.where.phase == "train" and self.reporter.sinks:
                scalars = summary(case.readings) | {"overhead_fraction": self.overhead_fraction()}
                self.reporter.tell("readings", scalars, case.where.step)
            self.reporter.report(case.findings, case.healthy, written=case.written)

    def abandon(self, case: Case | Passing) -> None:
        """The loss itself raised: react to what is known of the call, so that the cause is said first."""
        if isinstance(case, Passing):
            return
        self.flight.look(case, self.vocabulary)
        self.reporter.report(case.findings, case.healthy, written=case.written)

    def check_step(self, values: Mapping[str, Any], source: str) -> None:
        """Judge readings of the step (gradients, what a trainer logs): the rules that want at least one of them.

        They also see the readings of the step's call that explains most: one with bad padding or a bad loss.
        """
        with self._lock:
            cases = self.step_cases
            site = cases[-1].where.call_site if cases else ""
            where = self._where("train", self.step, max(0, self.micro_step - 1), source=source, call_site=site)
            worst = worst_of(cases)
            readings = Readings({}) if worst is None else worst.readings
            rules = [rule for rule in self._rules() if not values.keys().isdisjoint(rule.wants)]
            findings, healthy = judge(rules, readings.with_values(values), where, self._rule_fault)
            before = [finding for case in cases for finding in case.findings]
            if findings and worst is not None:
                again = worst.again(where, values, [*before, *findings], healthy)
                self.flight.look(again, self.vocabulary)
            self.reporter.report(findings, healthy, before)

    def check_case(self, case: Case, values: Mapping[str, Any], source: str) -> None:
        """Judge readings that were had of a call after it was judged: the rules that want at least one of them."""
        with self._lock:
            rules = [rule for rule in self._rules() if not values.keys().isdisjoint(rule.wants)]
            where = case.where.model_copy(update={"source": source})
            findings, healthy = judge(rules, case.readings.with_values(values), where, self._rule_fault)
            if findings:
                self.flight.look(case.again(where, values, [*case.findings, *findings], healthy), self.vocabulary)
            self.reporter.report(findings, healthy, case.findings)

    @property
    def step_cases(self) -> tuple[Case, ...]:
        """The training calls since the last optimizer step."""
        return tuple(self._case_of(case) if isinstance(case, Passing) else case for case in self._step_cases)

    def stepped(self) -> None:
        """An optimizer has stepped. Several optimizers after one call are one step, which ends with the next call."""
        self.steps_taken += 1
        self._moved |= self.micro_step > 0
        if self.steps_taken == BLIND_STEPS and not self.calls:
            self.say_blind()

    def at_step(self, step: int) -> None:
        """The count of optimizer steps, also from a trainer that keeps its own."""
        self.step = step
        self.micro_step = 0
        self._moved = False
        self._step_cases = []
        self._utterance_ids = ()

    def close(self, excused: bool = False) -> None:
        """End of the run: says so if nothing was ever seen, unless that is excused, and writes the last line."""
        self._settle_step()
        if not self.calls and not self.findings and not excused and not self.aware:
            self.say_blind()
        self.flight.close()
        self.reporter.job.close()
        self.reporter.tell("end", self.end_record())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of the run, as plain JSON values."""
        step = self.step + self._moved
        reported = self.reporter.state_dict()
        return {"schema": SCHEMA, "step": step, "history": self._history.state_dict(), "reported": reported}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, before the first call."""
        self.at_step(int(state["step"]))
        self._history.load_state_dict(state["history"])
        self.reporter.load_state_dict(state["reported"])

    def end_record(self) -> dict[str, Any]:
        """The last line of findings.jsonl."""
        codes: Counter[str] = Counter()
        for (code, _), count in self.reporter.counts.items():
            codes[code] += count
        return {
            "type": "end",
            "schema": SCHEMA,
            "steps": self.step,
            "calls": self.calls,
            "findings": codes.total(),
            "codes": dict(sorted(codes.items())),
            "overhead_fraction": self.overhead_fraction(),
            **self.end_fields,
        }

    def overhead_fraction(self) -> float:
        """The guard's own share of the time since the first call, in [0, 1]."""
        return self.clock.fraction()

    def contained(self, where: str) -> Contained:
        """Time the guard's own work and keep its faults out of the training; verdicts pass."""
        return Contained(self.clock, self._fault, where)

    def _where(
        self, phase: Phase, step: int, micro_step: int, framework: str = "", source: str = "", call_site: str = ""
    ) -> Where:
        return Where.model_construct(  # made at every call: what is given is of these types already
            phase=phase,
            step=step,
            micro_step=micro_step,
            rank=self.place.rank,
            ranks=self.place.ranks,
            framework=framework,
            source=source,
            call_site=call_site,
        )

    def _settle_step(self) -> None:
        if self._moved:
            self.at_step(self.step + 1)

    def _rules(self) -> list[Rule]:
        return [rule for rule in self.reporter.rules if rule.code not in self.reporter.broken]

    def _judge(self, case: Case, values: Mapping[str, Any], later: Later = NOTHING, last: bool = False) -> None:
        """Run the rules whose readings are there now; with ``last``, no more will come."""
        readings = case.readings.with_values(values, later)
        if case.where.phase == "train":
            if "input_lengths" in values:
                self._history.add_lengths(readings["frames"], readings.highest("input_lengths"))
                readings = readings.with_values({"length_history": self._history.lengths})
            if last:
                self._whole_due |= self._history.add(case.where.step, readings)
            if last and self._whole_due:
                self._whole_due = False
                readings = readings.with_values({"history": self._history.columns()})
        case.readings = readings
        findings, healthy = judge(self._due(case), readings, case.where, self._rule_fault)
        case.findings += findings
        case.findings += self._behind(case)
        case.healthy += healthy
        case.ran |= {finding.code for finding in findings} | {code for code, _ in healthy}

    def _due(self, case: Case) -> list[Rule]:
        """Rules about calls that have not run and whose readings are there; known for each set of readings."""
        key = case.readings.names(), len(case.ran), len(self.reporter.broken)
        known = self._plans.get(key)
        if known is None:
            rules = (rule for rule in self._rules() if rule.code not in case.ran and not rule.about_vocabulary())
            known = self._plans[key] = [rule for rule in rules if case.readings.keys() >= set(rule.wants)]
        return known

    def _behind(self, case: Case) -> list[Finding]:
        """The vocabulary and the head are judged before the first update, and at once when they explain a finding."""
        head = case.readings["classes"], case.readings["blank"]
        if not case.findings or self.vocabulary is None or not self._heads.is_open(*head):
            return []
        rules = [rule for rule in self._rules() if rule.about_vocabulary()]
        where = case.where.model_copy(update={"phase": "setup"})
        found = judge(rules, case.readings, where, self._rule_fault).findings
        roots = [root for root in found if any(explains(root, finding) for finding in case.findings)]
        if roots:
            self._heads.settle()
        return roots

    def _fault(self, where: str, error: Exception) -> None:
        self.reporter.fault(where, "capture", error)

    def _rule_fault(self, code: str, error: Exception) -> None:
        self.reporter.fault(code, "rule", error)

    def _react_early(self, case: Case) -> None:
        """Before the loss: only what ends the run, or must be on disk because the loss may corrupt memory."""
        if not case.findings:
            return
        unsafe = {rule.code for rule in self.reporter.rules if rule.unsafe}
        actions = {self.settings.action(finding.severity, case.where.phase) for finding in case.findings}
        if actions & {"raise", "stop"} or any(finding.code in unsafe for finding in case.findings):
            case.written = len(case.findings)
            self.flight.look(case, self.vocabulary)
            self.reporter.report(case.findings, case.healthy)

    def say_blind(self, **known: Any) -> None:
        """Say that no CTC loss was seen so far (CTC901)."""
        values = {"calls_seen": self.calls, "steps_taken": self.steps_taken, **known}
        self.reporter.say(GuardBlind, values, Where(step=self.step, **self.place._asdict()))
