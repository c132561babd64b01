"""The one object with memory of a run: counts steps, judges calls. Its own faults stay here."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ctcguard._array import Array
from ctcguard.call import CTCCall
from ctcguard.case import Case, summary, suspicion
from ctcguard.errors import CTCVerdictError
from ctcguard.finding import SCHEMA, Finding, Phase, Where
from ctcguard.history import History
from ctcguard.judge import describer, facts, judge
from ctcguard.probes import CONTRACT, DISTRIBUTION, EXACT, Layout, Probe, measure, one_utterance, unpack
from ctcguard.readings import Readings
from ctcguard.reporter import Reporter
from ctcguard.rules import GuardBlind, Rule
from ctcguard.settings import Settings
from ctcguard.sinks import Sink
from ctcguard.sinks.console import ConsoleSink
from ctcguard.sinks.jsonl import JsonLines
from ctcguard.verdict import Verdict, explains
from ctcguard.vocabulary import Vocabulary

ALWAYS_CALLS, THINNED = 32, 16
"""Calls measured in full whatever the budget says; after them, one in so many while over budget."""
EXACT_LOSS_CALLS = 1024
"""Of so many calls, the first has the loss of one utterance computed exactly (CTC505)."""
BLIND_STEPS = 100
"""Optimizer steps without a call after which CTC901 is said; else at the end."""
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
        self.run_dir = (settings.run_dir or default_dir or Path("ctcguard-runs") / stamp).absolute()
        self.rank = int(os.environ.get("RANK") or 0)
        self.step = self.micro_step = self.calls = self.steps_taken = 0
        self.reporter = Reporter(settings, [*self._own_sinks(), *sinks])
        self.aware = False
        self.end_fields: dict[str, Any] = {"probe_model": NOT_PROBED} if settings.probe_model else {}
        self._started_s: float | None = None
        self._spent_s = 0.0
        self._moved = False
        self._step_cases: list[Case] = []
        self._plans: dict[tuple[Any, ...], list[Rule]] = {}
        self._heads: set[tuple[int, int]] | None = set()
        self._judged_head: tuple[int | None, int | None] = None, None
        self._history = History()
        self._utterance_ids: tuple[str, ...] = ()
        self._lock = threading.RLock()

    def _own_sinks(self) -> Iterator[Sink]:
        wanted = self.settings.sinks
        if wanted == "auto" or "jsonl" in wanted:
            name = "findings.jsonl" if self.rank == 0 else f"findings-rank{self.rank}.jsonl"
            yield JsonLines((self.settings.findings or self.run_dir / name).absolute())
        if wanted == "auto" or "console" in wanted:
            yield ConsoleSink()

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

    def check_setup(self, values: Mapping[str, Any], source: str) -> None:
        """Judge what is known before the first call: ``classes``, ``blank``, ``config_vocab_size``."""
        known = {} if self.vocabulary is None else {"vocabulary": self.vocabulary}
        where = Where(phase="setup", step=self.step, rank=self.rank, source=source)
        rules = [rule for rule in self._rules() if rule.is_setup()]
        findings, healthy = judge(rules, Readings({**known, **values}), where, self._rule_fault)
        self._judged_head = values.get("classes"), values.get("blank")
        self.reporter.report(findings, healthy)

    def check_heads(self, source: str) -> None:
        """Before the first update: hold the vocabulary against the head of the calls so far, once.

        With calls of several heads (phonemes and characters, say) nobody knows whose it is: then it is not judged.
        """
        heads, self._heads = self._heads, None
        if heads and len(heads) == 1 and heads != {self._judged_head} and self.vocabulary is not None:
            classes, blank = heads.pop()
            self.check_setup({"classes": classes, "blank": blank}, source)

    def open(self, call: CTCCall, phase: Phase, early: bool) -> Case:
        """Take in a call; with ``early``, judge its targets and lengths before the loss is computed."""
        with self._lock:
            self._settle_step()
            self.calls += 1
            where = self._where(phase, self.micro_step, call.framework, call.source, call.call_site)
            if self._utterance_ids and not call.utterance_ids:
                call = call.with_ids(self._utterance_ids)
            if call.unknown is None and self.unknown is not None:
                call = replace(call, unknown=self.unknown)
            describe = describer(call.without_arrays(), self.vocabulary)
            case = Case(call, where, Readings(facts(call, self.vocabulary), describe))
            if phase == "train":
                if self._heads is not None:
                    self._heads.add((call.classes, call.blank))
                self.micro_step += 1
                self._step_cases.append(case)
            if early:
                self._judge(case, unpack(*measure(call, CONTRACT)))
                self._react_early(case)
            return case

    @property
    def unknown(self) -> int | None:
        """Index of the symbol that stands for whatever the vocabulary lacks."""
        return None if self.vocabulary is None else self.vocabulary.unknown

    def probes(self, batch: int) -> tuple[Probe, ...]:
        """What to measure of the scores of this call: targets, lengths, losses and frame maxima whatever the budget."""
        if self.calls % EXACT_LOSS_CALLS == 1 and batch:
            return (*DISTRIBUTION, partial(one_utterance, index=self.calls // EXACT_LOSS_CALLS % batch))
        return EXACT if self.thinned() else DISTRIBUTION

    def thinned(self) -> bool:
        """Whether this call is measured in part only: over budget, all but the first calls and every sixteenth are."""
        budget = self.settings.budget
        if budget is None or self.calls <= ALWAYS_CALLS or not self.calls % THINNED:
            return False
        return self.overhead_fraction() > budget

    def judge(self, case: Case, packed: Array, layout: Layout) -> None:
        """Read what was measured, judge it together with what is known of the case already, and react."""
        with self._lock:
            self._judge(case, unpack(packed, layout), last=True)
            case.call = case.call.without_arrays()
            if case.where.phase == "train":
                scalars = summary(case.readings) | {"overhead_fraction": self.overhead_fraction()}
                self.reporter.tell("readings", scalars, case.where.step)
            self.reporter.report(case.findings, case.healthy, written=case.written)

    def abandon(self, case: Case) -> None:
        """The loss itself raised: react to what is known of the call, so that the cause is said first."""
        self.reporter.report(case.findings, case.healthy, written=case.written)

    def check_step(self, values: Mapping[str, Any], source: str) -> None:
        """Judge readings of the step (gradients, what a trainer logs): the rules that want at least one of them.

        They also see the readings of the step's call that explains most: one with bad padding or a bad loss.
        """
        with self._lock:
            site = self._step_cases[-1].where.call_site if self._step_cases else ""
            where = self._where("train", max(0, self.micro_step - 1), source=source, call_site=site)
            readings = max((case.readings for case in self._step_cases), key=suspicion, default=Readings({}))
            rules = [rule for rule in self._rules() if not values.keys().isdisjoint(rule.wants)]
            findings, healthy = judge(rules, readings.with_values(values), where, self._rule_fault)
            before = [finding for case in self._step_cases for finding in case.findings]
            self.reporter.report(findings, healthy, before)

    def check_case(self, case: Case, values: Mapping[str, Any], source: str) -> None:
        """Judge readings that were had of a call after it was judged: the rules that want at least one of them."""
        with self._lock:
            rules = [rule for rule in self._rules() if not values.keys().isdisjoint(rule.wants)]
            where = case.where.model_copy(update={"source": source})
            findings, healthy = judge(rules, case.readings.with_values(values), where, self._rule_fault)
            self.reporter.report(findings, healthy, case.findings)

    @property
    def step_cases(self) -> tuple[Case, ...]:
        """The training calls since the last optimizer step."""
        return tuple(self._step_cases)

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
        self.reporter.tell("end", self.end_record())

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
        elapsed = time.perf_counter() - self._started_s if self._started_s else 0.0
        return min(1.0, self._spent_s / elapsed) if elapsed > 0 else 0.0

    @contextmanager
    def contained(self, where: str) -> Iterator[None]:
        """Time the guard's own work and keep its faults out of the training; verdicts pass."""
        started = time.perf_counter()
        self._started_s = self._started_s or started
        try:
            yield
        except CTCVerdictError:
            raise
        except Exception as error:  # noqa: BLE001 - becomes CTC902
            self.reporter.fault(where, "capture", error)
        finally:
            self._spent_s += time.perf_counter() - started

    def _where(
        self, phase: Phase, micro_step: int, framework: str = "", source: str = "", call_site: str = ""
    ) -> Where:
        return Where(
            phase=phase,
            step=self.step,
            micro_step=micro_step,
            rank=self.rank,
            framework=framework,
            source=source,
            call_site=call_site,
        )

    def _settle_step(self) -> None:
        if self._moved:
            self.at_step(self.step + 1)

    def _rules(self) -> list[Rule]:
        return [rule for rule in self.reporter.rules if rule.code not in self.reporter.broken]

    def _judge(self, case: Case, values: Mapping[str, Any], last: bool = False) -> None:
        """Run the rules whose readings are there now; with ``last``, no more will come."""
        readings = case.readings.with_values(values)
        if case.where.phase == "train":
            if "input_lengths" in values:
                lengths = self._history.add_lengths(readings)
                readings = readings.with_values({"length_history": lengths})
            if last and self._history.add(case.where.step, readings):
                readings = readings.with_values({"history": self._history.columns()})
        case.readings = readings
        findings, healthy = judge(self._due(readings, case.ran), readings, case.where, self._rule_fault)
        case.findings += findings
        case.findings += self._behind(case)
        case.healthy += healthy
        case.ran |= {finding.code for finding in findings} | {code for code, _ in healthy}

    def _due(self, readings: Readings, ran: Set[str]) -> list[Rule]:
        """Rules about calls that have not run and whose readings are there; known for each set of readings."""
        key = frozenset(readings), frozenset(ran), len(self.reporter.broken)
        known = self._plans.get(key)
        if known is None:
            rules = (rule for rule in self._rules() if rule.code not in ran and not rule.about_vocabulary())
            known = self._plans[key] = [rule for rule in rules if readings.keys() >= set(rule.wants)]
        return known

    def _behind(self, case: Case) -> list[Finding]:
        """The vocabulary and the head are judged before the first update, and at once when they explain a finding."""
        head = case.readings["classes"], case.readings["blank"]
        if self._heads is None or self.vocabulary is None or not case.findings or head == self._judged_head:
            return []
        rules = [rule for rule in self._rules() if rule.about_vocabulary()]
        where = case.where.model_copy(update={"phase": "setup"})
        found = judge(rules, case.readings, where, self._rule_fault).findings
        roots = [root for root in found if any(explains(root, finding) for finding in case.findings)]
        self._heads = None if roots else self._heads
        return roots

    def _rule_fault(self, code: str, error: Exception) -> None:
        self.reporter.fault(code, "rule", error)

    def _react_early(self, case: Case) -> None:
        """Before the loss: only what ends the run, or must be on disk because the loss may corrupt memory."""
        unsafe = {rule.code for rule in self.reporter.rules if rule.unsafe}
        actions = {self.settings.action(finding.severity, case.where.phase) for finding in case.findings}
        if actions & {"raise", "stop"} or any(finding.code in unsafe for finding in case.findings):
            case.written = len(case.findings)
            self.reporter.report(case.findings, case.healthy)

    def say_blind(self, **known: Any) -> None:
        """Say that no CTC loss was seen so far (CTC901)."""
        values = {"calls_seen": self.calls, "steps_taken": self.steps_taken, **known}
        self.reporter.say(GuardBlind, values, Where(step=self.step, rank=self.rank))
