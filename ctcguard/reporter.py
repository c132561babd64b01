"""From findings to reactions: each cause is said once, in every sink, before anything is raised."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from typing import Any

from ctcguard.background import on_thread
from ctcguard.errors import CTCStop, CTCVerdictError
from ctcguard.finding import Finding, Severity, Where
from ctcguard.job import Job
from ctcguard.judge import judge
from ctcguard.readings import Readings
from ctcguard.rules import AlertUndelivered, GuardFault, Rule
from ctcguard.settings import Settings
from ctcguard.sinks import Sink
from ctcguard.sinks.jsonl import JsonLines
from ctcguard.verdict import Healthy, Verdict, explains, verdicts

WRITTEN_PER_CAUSE = 100
"""Findings of one code and cause that are kept and written to findings.jsonl; all are counted."""
DEADLINE_S = 15.0
"""Longest wait for a sink; longer than those of the sinks that keep one themselves."""
OWN = ("ctcguard", "ctcguard_integrations")


class Reporter:
    """Merges findings into verdicts, tells the sinks, and reacts to the worst.

    Parameters
    ----------
    settings : Settings
        What happens on which severity.
    sinks : sequence of Sink
        Told in this order. A sink's own fault becomes CTC902 or CTC903; it never leaves.

    Attributes
    ----------
    findings : list of Finding
        What was found, information too; of one code and cause, the first hundred.
    counts : Counter
        How often each code and cause was found.
    verdicts : list of Verdict
        One for each cause that was announced.
    stop : Verdict or None
        Set by a finding whose reaction is ``stop``.
    stop_by_raising : bool
        Whether ``stop`` raises `CTCStop`; a trainer that can be asked to stop sets it to False.
    job : Job
        The other ranks, where there are any.
    """

    def __init__(self, settings: Settings, sinks: Sequence[Sink]) -> None:
        self.settings = settings
        self.sinks = list(sinks)
        self.rules = settings.rules()
        self.findings: list[Finding] = []
        self.verdicts: list[Verdict] = []
        self.stop: Verdict | None = None
        self.stop_by_raising = True
        self.job = Job()
        self.broken: set[str] = set()
        self._telling = threading.RLock()
        self._muted: set[tuple[str, str]] = set()
        self._hanging: set[str] = set()
        self.counts: Counter[tuple[str, str]] = Counter()
        self._aftermath: dict[str, Finding] = {}
        self._announced: dict[tuple[str, str], int] = {}
        self._before: set[tuple[str, str]] = set()

    def report(
        self, findings: Sequence[Finding], healthy: Healthy = (), before: Sequence[Finding] = (), written: int = 0
    ) -> None:
        """Write findings, announce the new causes among them, and raise if that is the reaction.

        Parameters
        ----------
        findings : sequence of Finding
            Of one call or step.
        healthy : sequence of (code, explains)
            Rules that ran and found nothing.
        before : sequence of Finding
            Earlier findings that may explain these.
        written : int
            How many of the findings, from the first on, were reported before; they still explain the others.

        Raises
        ------
        CTCVerdictError, CTCStop
            When the reaction to one of the verdicts is ``raise`` or ``stop``.
        """
        if not findings:
            return
        for finding in findings[written:]:
            if self._keep(finding):
                self.tell("finding", finding)
        fresh = self._unaccounted(findings, before)
        if any((verdict.code, verdict.cause) not in self._announced for verdict in verdicts(fresh)):
            fresh = self._unaccounted(self._own(fresh), before)
        self._remember(findings)
        announced = [self._announce(verdict) for verdict in verdicts(fresh, healthy)]
        for action in ("raise", "stop"):
            for verdict in announced:
                if verdict.action == action:
                    self._leave(verdict)

    def tell(self, method: str, *values: Any) -> None:
        """Tell every sink something; what one cannot take is contained."""
        for sink in self.sinks:
            self._contained(sink, method, *values)

    def fault(self, where: str, kind: str, error: Exception, silent: Sink | None = None) -> None:
        """Report a fault of the guard itself, once for each place (CTC902)."""
        if where not in self.broken:
            self.broken.add(where)
            try:
                self.say(GuardFault, {"fault": {"where": where, "kind": kind, "error": _shown(error)}}, silent=silent)
            except Exception as worse:  # noqa: BLE001 - out of memory or of stack: a fault that cannot even be judged
                _last_words(f"{where} failed ({type(error).__name__}); not reported ({type(worse).__name__})")

    def say(
        self, kind: type[Rule], values: Mapping[str, Any], where: Where | None = None, silent: Sink | None = None
    ) -> None:
        """A finding of the guard about itself: shown and written, never raised, and not by the sink that failed."""
        rules = [rule for rule in self.rules if isinstance(rule, kind)]
        for finding in judge(rules, Readings(values), where or Where(**self.job.place._asdict())).findings:
            verdict = Verdict(root=finding, action="log" if self.settings.on_warning == "log" else "alert")
            self._keep(finding)
            self.verdicts.append(verdict)
            for sink in self.sinks:
                if sink is not silent:
                    self._contained(sink, "finding", finding)
            self._tell_verdict(verdict, silent)

    def state_dict(self) -> dict[str, Any]:
        """What was reported so far, as plain JSON values, so that a resumed run does not say it again."""
        return {
            "announced": [[*key, rank] for key, rank in self._announced.items()],
            "counts": [[*key, count] for key, count in self.counts.items()],
            "aftermath": [
                finding.model_dump(mode="json", exclude={"readings", "utterances"})
                for finding in self._aftermath.values()
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._announced = {(code, cause): rank for code, cause, rank in state["announced"]}
        self._before = set(self._announced)
        self.counts = Counter({(code, cause): count for code, cause, count in state["counts"]})
        self._aftermath = {finding["code"]: Finding.model_validate(finding) for finding in state["aftermath"]}

    def _keep(self, finding: Finding) -> bool:
        """Count a finding, and keep it if there are not too many of its kind."""
        self.counts[finding.code, finding.cause] += 1
        few = self.counts[finding.code, finding.cause] <= WRITTEN_PER_CAUSE
        if few:
            self.findings.append(finding)
        return few

    def _unaccounted(self, findings: Iterable[Finding], before: Sequence[Finding]) -> list[Finding]:
        past = (*before, *self._aftermath.values())
        return [finding for finding in findings if not any(_accounts(cause, finding) for cause in past)]

    def _own(self, findings: Sequence[Finding]) -> list[Finding]:
        """Those of which no other rank has just said the cause: a bad loss of one makes the gradients of all bad."""
        shared = {rule.code for rule in self.rules if rule.shared}
        heard = self.job.heard(wait=any(finding.code in shared for finding in findings))
        self._remember(heard)
        return [
            finding
            for finding in findings
            if finding.code not in shared
            or not any(cause.step == finding.step and _accounts(cause, finding) for cause in heard)
        ]

    def _remember(self, findings: Iterable[Finding]) -> None:
        lasting = {rule.code: rule.aftermath for rule in self.rules if rule.aftermath}
        poison = {rule.code: rule.poisons for rule in self.rules if rule.poisons}
        for finding in findings:
            left = poison if finding.framework == "jax" and finding.code in poison else lasting
            if finding.code in left:
                whole = {"explains": left[finding.code], "affected": frozenset()}
                self._aftermath[finding.code] = finding.model_copy(update=whole)

    def _announce(self, verdict: Verdict) -> Verdict:
        """Decide on the action, and tell the sinks of a cause that they do not know yet."""
        worst = min((finding.severity for finding in verdict.findings()), key=lambda severity: severity.rank)
        verdict = verdict.model_copy(update={"action": self.settings.action(worst, verdict.root.phase)})
        key = verdict.code, verdict.cause
        unseen = verdict.action in ("raise", "stop") and key in self._before  # what ends a run is shown in that run
        if unseen or worst.rank < self._announced.get(key, len(Severity)):  # new, or worse than when it was said
            self._announced[key] = worst.rank
            self._before.discard(key)
            self.verdicts.append(verdict)
            self._tell_verdict(verdict)
        return verdict

    def _tell_verdict(self, verdict: Verdict, silent: Sink | None = None) -> None:
        """Tell the file of this rank, and the other sinks unless another rank tells of this cause."""
        with self.job.announcing(verdict) as ours:
            for sink in self.sinks:
                if sink is not silent and (isinstance(sink, JsonLines) or ours(sink)):
                    self.show(sink, verdict)

    def show(self, sink: Sink, verdict: Verdict) -> None:
        """Tell a sink of a verdict, if its action is more than ``log``; the file in any case."""
        if verdict.action != "log" or isinstance(sink, JsonLines):
            self._contained(sink, "verdict", verdict)

    def _leave(self, verdict: Verdict) -> None:
        if verdict.action == "raise":
            error = CTCVerdictError(verdict)
            self.job.leaving(error)
            raise error
        if not self.job.stops(verdict):
            self.stop_now(verdict)

    def stop_now(self, verdict: Verdict) -> None:
        """End the training: by `CTCStop`, or for a trainer to see."""
        self.stop = verdict
        if self.stop_by_raising:
            raise CTCStop(verdict)

    def _contained(self, sink: Sink, method: str, *values: Any) -> None:
        """Tell a sink; after a failure it is not told the same kind of thing again."""
        name = _name(sink)
        key = (name, method)
        if key in self._muted or name in self._hanging:
            return
        try:
            with self._telling:  # verdicts of other ranks come on a thread
                _tell_in_time(sink, method, values)
        except Exception as error:  # noqa: BLE001 - becomes CTC902 or CTC903: nothing a sink does may break training
            self._muted.add(key)
            self._hanging |= {name} if isinstance(error, TimeoutError) else set()
            self._sink_fault(sink, method, error, values)

    def _sink_fault(self, sink: Sink, method: str, error: Exception, values: tuple[Any, ...]) -> None:
        if method == "verdict" and not isinstance(sink, JsonLines):
            said = {"sink": _name(sink), "error": _shown(error), "title": values[0].root.title()}
            self.say(AlertUndelivered, {"undelivered": said}, silent=sink)
        else:
            self.fault(f"sink {_name(sink)}", "sink", error, silent=sink)


def _tell_in_time(sink: Sink, method: str, values: tuple[Any, ...]) -> None:
    """Tell a sink, on a thread that is not waited for for ever.

    ctcguard's own sinks take the readings of every call in no time, and directly.
    """
    told = getattr(sink, method)
    if method == "readings" and type(sink).__module__.partition(".")[0] in OWN:
        told(*values)
        return
    answer = on_thread(partial(told, *values), f"ctcguard {_name(sink)}")
    if not wait([answer], DEADLINE_S).done:
        raise TimeoutError(f"no answer within {DEADLINE_S:g} s; it is told nothing more")
    answer.result()


def _name(sink: Sink) -> str:
    return str(getattr(sink, "name", type(sink).__name__))


def _shown(error: Exception) -> str:
    """Type and text of an exception, whatever its ``__str__`` does."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the exception is not ours
        return f"{type(error).__name__}, without a text"


def _last_words(text: str) -> None:
    with suppress(Exception):
        sys.stderr.write(f"ctcguard: {text}; training goes on\n")


def _accounts(cause: Finding, finding: Finding) -> bool:
    """Whether an earlier finding makes this one no news: it explains it, and was said to be as bad."""
    return explains(cause, finding) and cause.severity.rank <= finding.severity.rank
