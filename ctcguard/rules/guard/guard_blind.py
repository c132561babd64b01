"""CTC901 guard-blind."""

from __future__ import annotations

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule

EVIDENCE = {
    "no-ctc-call": "torch.ctc_loss was not called while the guard watched",
    "imported-earlier": "ctc_loss had been imported by name before the guard was there",
    "compiled-earlier": "the step had been compiled ahead of time before it was guarded",
}
JAX_EVIDENCE = "optax.ctc_loss was neither traced nor called in the guarded step"
FIXES = {
    "no-ctc-call": "put watch() {where}; for k2 or a loss of your own, call guard.observe(log_probs=…, targets=…, …) "
    "beside it",
    "imported-earlier": "import ctc_loss after the guard is there, or call it as torch.nn.functional.ctc_loss",
    "compiled-earlier": "guard the function or its jax.jit before .lower(…).compile()",
}
JAX_FIX = "guard the step that calls optax.ctc_loss; for a loss of your own, call ctcguard.observe(logits=…, …) in it"


class GuardBlind(Rule):
    """## What it does

    Checks that the guard saw a CTC loss at all.

    ## Why is this bad?

    No finding then means nothing: the training was not checked. A guard that sees nothing has to say so.

    ## Likely causes

    - `imported-earlier`: `from torch import ctc_loss` was run before the guard, so that the calls pass by it.
    - `compiled-earlier`: the JAX step was compiled ahead of time (`.lower().compile()`): nothing of it is traced.
    - `no-ctc-call`: the loss is one that the guard does not know (k2, warp-ctc, code of your own), it is called in
      another process, or nothing was trained.

    ## How to fix

    Put `watch()` around the training loop, before it starts. Call the loss as `torch.nn.functional.ctc_loss`, or import
    it after the guard is there. For a loss of another kind, call `guard.observe(log_probs=…, targets=…, …)` beside it.
    JAX: give `guard_step` the step that calls `optax.ctc_loss`, not a compiled one; `ctcguard.observe` is for others.
    It worked when the last line of findings.jsonl counts calls.

    ## Thresholds

    None. The guard asks after 100 optimizer steps without a call (JAX: after the first step), or at the end.

    ## Known problems

    Fires for a script that only evaluates without a loss, or that ends before it trains.

    ## Example

    Fires:

    >>> from ctcguard.readings import Readings
    >>> GuardBlind().check(Readings({"calls_seen": 0, "steps_taken": 100})).cause
    'no-ctc-call'

    Use instead:

    >>> GuardBlind().check(Readings({"calls_seen": 1, "steps_taken": 1}))

    ## References

    - https://docs.python.org/3/faq/programming.html#what-are-the-best-practices-for-using-import-in-a-module
    """

    code = "CTC901"
    severity = Severity.WARNING
    wants = ("calls_seen",)
    causes = ("no-ctc-call", "imported-earlier", "compiled-earlier")
    explains = ()

    def check(self, readings: Readings) -> Finding | None:
        """Fires when no call was seen."""
        calls, steps = readings["calls_seen"], readings.get("steps_taken", 0)
        if calls > 0:
            return None
        cause = "imported-earlier" if readings.get("imported_earlier", False) else "no-ctc-call"
        cause = "compiled-earlier" if readings.get("compiled_earlier", False) else cause
        in_jax = cause == "no-ctc-call" and readings.get("framework") == "jax"
        trained = f"{steps} optimizer steps were taken" if steps else "the guard was closed before any optimizer step"
        where = "around the loop that trains, before it starts" if steps else "where the training runs"
        return self.finding(
            readings,
            cause=cause,
            evidence=JAX_EVIDENCE if in_jax else EVIDENCE[cause],
            message=f"{trained}, and no CTC loss was seen: nothing was checked",
            fix=JAX_FIX if in_jax else FIXES[cause].format(where=where),
            numbers={"calls_seen": calls, "steps_taken": steps},
        )
