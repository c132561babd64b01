"""CTC902 guard-fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule

OFF = {
    "probe": "what it measures, and the rules that need it",
    "rule": "this rule",
    "sink": "what this sink would have shown",
    "capture": "what would have been seen there",
}


class GuardFault(Rule):
    """## What it does

    Checks that no probe, rule, sink or other part of ctcguard failed.

    ## Why is this bad?

    The training goes on as if ctcguard were not there, but a part of the checks is missing from now on.

    ## Likely causes

    - `probe`: a measurement failed, for instance on an array of an unusual kind.
    - `rule`: a rule failed on its readings.
    - `sink`: a place where findings go failed: disk full, no permission, a service.
    - `capture`: a call could not be brought into the form in which it is judged.

    ## How to fix

    For a sink, see whether its place can be written to. Anything else is a bug of ctcguard: report it, with the error
    in this finding and the shapes and dtypes of the call. It worked when the last line of findings.jsonl counts no
    CTC902.

    ## Thresholds

    None.

    ## Known problems

    Said once for each part; how often it failed is not counted.

    ## Example

    Fires:

    >>> from ctcguard.readings import Readings
    >>> fault = {"where": "rule CTC402", "kind": "rule", "error": "KeyError: 'frames'"}
    >>> GuardFault().check(Readings({"fault": fault})).message
    "rule CTC402 failed (KeyError: 'frames'); training goes on, without this rule"

    Without a fault there is no such reading, and the rule is not run:

    >>> from ctcguard.judge import judge
    >>> judge([GuardFault()], Readings({})).findings
    ()

    ## References

    - https://github.com/awslabs/sagemaker-debugger (a monitor that fails must not take the training with it)
    """

    code = "CTC902"
    severity = Severity.WARNING
    wants = ("fault",)
    causes = ("probe", "rule", "sink", "capture")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """Fires whenever a part of ctcguard failed."""
        where, kind, error = (_part(readings["fault"], name) for name in ("where", "kind", "error"))
        place = where if where.startswith(kind) else f"{kind} {where}"
        own = f"report it as a bug of ctcguard, with {error!r}, the shapes and the dtypes"
        return self.finding(
            readings,
            cause=kind,
            evidence=error,
            message=f"{place} failed ({error}); training goes on, without {OFF[kind]}",
            fix=f"see whether {place} can be written to" if kind == "sink" else own,
            numbers={"where": where, "kind": kind, "error": error},
        )


def _part(fault: Any, name: str) -> str:
    return str(fault[name] if isinstance(fault, Mapping) else getattr(fault, name))
