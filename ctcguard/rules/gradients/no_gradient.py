"""CTC603 no-gradient."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule


class State(NamedTuple):
    """What is wrong with the head in one state, what was seen, and what to write instead."""

    severity: Severity
    evidence: str
    fix: str


STATES = {
    "detached": State(
        Severity.WARNING,
        "the scores have no autograd graph: it was cut between {head} and {source}",
        "remove what cuts it (detach, .data, .item, numpy, no_grad) between {head} and {source}; if this loss is only "
        "a metric, compute it under torch.no_grad()",
    ),
    "frozen": State(
        Severity.INFORMATION,
        "requires_grad is False for {head}",
        "if it is to learn, call requires_grad_(True) on {head} before the optimizer is made",
    ),
    "not-in-optimizer": State(
        Severity.WARNING,
        "{head} gets a gradient, but no optimizer that stepped holds it",
        "make the optimizer after the head was replaced, or call optimizer.add_param_group with the weights of {head}; "
        "if it is to stay as it is, requires_grad_(False)",
    ),
    "zeroed-before-step": State(
        Severity.ERROR,
        "{head} got a gradient in the backward pass, but it is 0 or None when the optimizer steps",
        "call optimizer.zero_grad() before loss.backward() or after optimizer.step(), never between the two",
    ),
}


class NoGradient(Rule):
    """## What it does

    Checks that the loss can teach the head: that a gradient reaches it, and that an optimizer applies it.

    ## Why is this bad?

    The loss is right and stays where it is: near `T ln C` with a fresh head, for as long as you let it run. From
    outside it looks like a learning rate that is too low, or like the flat phase before CTC starts to learn.

    ## In optax

    Not seen: gradients and weights never leave the compiled step. Behind `jax.lax.stop_gradient`, or when the loop
    drops the new parameters, the loss stays where it is: 8.65 nats at every step for `[1, 2, 3]` on logits of zeros (10
    frames, 5 classes). In the first case `optax.global_norm(gradients)` is exactly 0; in the second compare parameters
    before and after a step.

    ## Likely causes

    - `zeroed-before-step`: `zero_grad()` stands between `backward()` and `step()`. An error.
    - `not-in-optimizer`: the head was replaced or resized after the optimizer had been made. A warning,
      for only adapters below it may be meant to learn.
    - `detached`: the scores went through detach, numpy or `no_grad`. A warning, for the loss may be only a metric.
    - `frozen`: its weights do not require a gradient. Information, for it may be on purpose.

    ## How to fix

    As the finding says, with the name of the head. It worked when the head's weights differ after a step.

    ## Thresholds

    - `grace_steps` (optimizer steps, 3): so many steps must have shown the same state.

    ## Known problems

    A head that is trained by another loss, or by an optimizer that is none of torch's, may look as if it were in none.
    Losses computed with gradients switched on but only logged are reported as `detached` when their input is. An
    optimizer that holds the head but is never called is reported after 100 steps of others only: it may be gathering
    gradients. Gradients thrown away are not told from a loss without weight where something else in the step has a
    gradient, or once the optimizer has moved the head: CTC may have weight 0 for a while, and a batch may be skipped.

    ## Example

    Fires:

    >>> from ctcguard.readings import Readings
    >>> readings = Readings({"head_state": "not-in-optimizer", "head_parameter": "lm_head", "head_steps": 3})
    >>> found = NoGradient().check(readings)
    >>> found.cause, found.evidence
    ('not-in-optimizer', 'lm_head gets a gradient, but no optimizer that stepped holds it')

    Use instead:

    >>> NoGradient().check(Readings({"head_state": "learning", "head_steps": 3}))

    ## References

    - https://github.com/rll/deepul/issues/12 (where zero_grad belongs)
    - https://github.com/speechbrain/speechbrain/issues/2067 (what else a flat loss can be)
    """

    code = "CTC603"
    severity = Severity.ERROR
    wants = ("head_state",)
    causes = ("zeroed-before-step", "not-in-optimizer", "detached", "frozen")
    explains = ("CTC701", "CTC702", "CTC703")
    aftermath = explains

    grace_steps: int = Field(3, ge=1, description="optimizer steps that must have shown the same state")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when the head has been in any state but "learning" for long enough."""
        cause, steps = str(readings["head_state"]), readings.get("head_steps", self.grace_steps)
        if cause == "learning" or steps < self.grace_steps:
            return None
        state = STATES[cause]
        head = readings.get("head_parameter") or "the head"
        names = {"head": head, "source": readings.get("source") or "the loss"}
        return self.finding(
            readings,
            cause=cause,
            evidence=state.evidence.format(**names),
            message=f"the loss must move {head}, but in {steps} optimizer steps it could not",
            fix=state.fix.format(**names),
            numbers={"head_state": cause, "head_steps": steps},
            severity=state.severity,
        )
