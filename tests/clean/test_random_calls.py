"""Random right calls of ``torch.nn.functional.ctc_loss``, of any shape, precision and certainty: nothing to be said."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings

from ctcguard import diagnose
from ctcguard.call import ctc_call
from ctcguard.finding import Finding
from ctcguard.judge import facts, judge
from ctcguard.probes import CONTRACT, EXACT, measure, unpack
from ctcguard.readings import Readings
from ctcguard.rules import ALL
from tests.clean.lab import assert_clean
from tests.clean.random_calls import calls, made

EVERY_RULE = [rule() for rule in ALL]


def over_budget(call: dict[str, Any]) -> list[Finding]:
    """What is found when a guard over its budget measures less."""
    normal = ctc_call(**call)
    readings = unpack(*measure(normal, CONTRACT + EXACT, beside=normal.scores))
    return list(judge(EVERY_RULE, Readings({**facts(normal), **readings})).findings)


SMALLEST = {
    "batch": [([1], 1)], "classes": 2, "blank": 0, "spare_frames": 0, "shape": "certain", "scale": 30.0,
    "softmax": "float32", "scores": "float32", "targets": "padded", "lengths": "list", "zero_infinity": False,
    "batch_first": False, "seed": 0,
}  # fmt: skip


@settings(max_examples=5 * settings().max_examples // 2)
@given(calls())
@example(SMALLEST)
@example(SMALLEST | {"batch": [([], 1)]})
@example(SMALLEST | {"batch": [([1], 2), ([1, 1], 3)], "shape": "undecided", "softmax": "bfloat16"})
@example(SMALLEST | {"batch": [([1], 30)] * 3, "shape": "undecided", "softmax": "bfloat16", "scores": "same"})
def test_nothing_is_said_of_a_right_call(kind: dict[str, Any]) -> None:
    call = made(kind)
    empty = {"CTC204"} if any(not target for target, _ in kind["batch"]) else set()
    found = [finding for verdict in diagnose(**call) for finding in verdict.findings()]
    assert_clean(found, frozenset(empty))
    assert_clean(over_budget(call), frozenset(empty))
