"""CTC903 alert-undelivered."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class AlertUndelivered(Rule):
    """## What it does

    Checks that every alert could be handed over to the service that it was meant for (wandb, for instance).

    ## Why is this bad?

    Nobody is told. The training is not touched: nothing that such a service does can break it, and the verdict is kept
    in `findings.jsonl` and on the screen.

    ## Likely causes

    - `finished-run`: the error says that the run was finished before the alert came.
    - `unreachable`: any other error: the service is down, the network is, or the credentials are missing.

    ## How to fix

    `finished-run`: finish the run (`wandb.finish()`) after the guarded part. `unreachable`: see whether the service can
    be reached from this machine, or work offline (`WANDB_MODE=offline`). It worked when the next alert arrives.

    ## Thresholds

    None.

    ## Known problems

    Said once for each service, which then gets no more alerts. An alert that the service accepts and then drops, as
    wandb does with `mode="disabled"` and with a title that it has just shown, cannot be seen.

    ## Example

    Fires:

    >>> from ctcguard.readings import Readings
    >>> undelivered = {"sink": "wandb", "error": "UsageError: Run is finished", "title": "CTC402 at step 0"}
    >>> AlertUndelivered().check(Readings({"undelivered": undelivered})).cause
    'finished-run'

    Without a failure there is no such reading, and the rule is not run:

    >>> from ctcguard.judge import judge
    >>> judge([AlertUndelivered()], Readings({})).findings
    ()

    ## References

    - https://docs.wandb.ai/models/runs/alert
    - https://github.com/wandb/wandb/pull/5013 (a finished run raises)
    """

    code = "CTC903"
    severity = Severity.WARNING
    wants = ("undelivered",)
    causes = ("finished-run", "unreachable")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """Fires whenever a sink could not hand an alert over."""
        alert = readings["undelivered"]
        sink, error, title = (str(alert[part]) for part in ("sink", "error", "title"))
        finished = "finish" in error.lower()
        after = f"finish the {sink} run after the guarded part, not before"
        return self.finding(
            readings,
            cause="finished-run" if finished else "unreachable",
            evidence=error,
            message=f"the alert {title!r} could not be handed to {sink}; training goes on, all is in findings.jsonl",
            fix=after if finished else f"see whether {sink} can be reached from here; until then read findings.jsonl",
            numbers={"sink": sink, "error": error, "title": title},
        )
