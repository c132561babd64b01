"""From findings to reactions: each cause is said once, in every sink, before anything is raised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ctcguard.errors import CTCStop, CTCVerdictError
from ctcguard.finding import Finding, Severity, Where
from ctcguard.judge import judge
from ctcguard.readings import Readings
from ctcguard.rules import AlertUndelivered, GuardFault, Rule
from ctcguard.settings import Settings
from ctcguard.sinks import Sink
from ctcguard.sinks.jsonl import JsonLines
from ctcguard.verdict import Healthy, Verdict, explains, verdicts

WRITTEN_PER_CAUSE = 100
"""Findings of one code and cause that are kept and written to findings.jsonl; all are counted."""


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
    """

    def __init__(self, settings: Settings, sinks: Sequence[Sink]) -> None:
        self.settings = settings
        self.sinks = list(sinks)
        self.rules = settings.rules()
        self.findings: list[Finding] = []
        self.verdicts: list[Verdict] = []
        self.stop: Verdict | None = None
        self.stop_by_raising = True
        self.broken: set[str] = set()
        self._muted: set[tuple[str, str]] = set()
        self.counts: Counter[tuple[str, str]] = Counter()
        self._aftermath: dict[str, Finding] = {}
        self._announced: dict[tuple[str, str], int] = {}

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
        for finding in findings[written:]:
            if self._keep(finding):
                self.tell("finding", finding)
        past = (*before, *self._aftermath.values())
        fresh = [finding for finding in findings if not any(_accounts(cause, finding) for cause in past)]
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
            said = {"where": where, "kind": kind, "error": f"{type(error).__name__}: {error}"}
            self.say(GuardFault, {"fault": said}, silent=silent)

    def say(
        self, kind: type[Rule], values: Mapping[str, Any], where: Where | None = None, silent: Sink | None = None
    ) -> None:
        """A finding of the guard about itself: shown and written, never raised, and not by the sink that failed."""
        rules = [rule for rule in self.rules if isinstance(rule, kind)]
        for finding in judge(rules, Readings(values), where or Where()).findings:
            verdict = Verdict(root=finding, action="log" if self.settings.on_warning == "log" else "alert")
            self._keep(finding)
            self.verdicts.append(verdict)
            for sink in self.sinks:
                if sink is not silent:
                    self._contained(sink, "finding", finding)
                    self._show(sink, verdict)

    def _keep(self, finding: Finding) -> bool:
        """Count a finding, and keep it if there are not too many of its kind."""
        self.counts[finding.code, finding.cause] += 1
        few = self.counts[finding.code, finding.cause] <= WRITTEN_PER_CAUSE
        if few:
            self.findings.append(finding)
        return few

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
        if worst.rank < self._announced.get(key, len(Severity)):  # new, or worse than when it was said
            self._announced[key] = worst.rank
            self.verdicts.append(verdict)
            for sink in self.sinks:
                self._show(sink, verdict)
        return verdict

    def _show(self, sink: Sink, verdict: Verdict) -> None:
        if verdict.action != "log" or isinstance(sink, JsonLines):
            self._contained(sink, "verdict", verdict)

    def _leave(self, verdict: Verdict) -> None:
        if verdict.action == "raise":
            raise CTCVerdictError(verdict)
        self.stop = verdict
        if self.stop_by_raising:
            raise CTCStop(verdict)

    def _contained(self, sink: Sink, method: str, *values: Any) -> None:
        """Tell a sink; after a failure it is not told the same kind of thing again."""
        key = (sink.name, method)
        if key in self._muted:
            return
        try:
            getattr(sink, method)(*values)
        except Exception as error:  # noqa: BLE001 - becomes CTC902 or CTC903: nothing a sink does may break training
            self._muted.add(key)
            self._sink_fault(sink, method, error, values)

    def _sink_fault(self, sink: Sink, method: str, error: Exception, values: tuple[Any, ...]) -> None:
        if method == "verdict" and not isinstance(sink, JsonLines):
            said = {"sink": sink.name, "error": f"{type(error).__name__}: {error}", "title": values[0].root.title()}
            self.say(AlertUndelivered, {"undelivered": said}, silent=sink)
        else:
            self.fault(f"sink {sink.name}", "sink", error, silent=sink)


def _accounts(cause: Finding, finding: Finding) -> bool:
    """Whether an earlier finding makes this one no news: it explains it, and was said to be as bad."""
    return explains(cause, finding) and cause.severity.rank <= finding.severity.rank
