"""How wrong labels of an utterance are shown."""

from __future__ import annotations

from collections.abc import Callable

from ctcguard.readings import Readings
from ctcguard.rules.vocabulary._head import quoted

SHOWN_LABELS = 3


def shown(readings: Readings, index: int, is_wrong: Callable[[int], bool]) -> str:
    """The first wrong labels of an utterance, ``": labels[4] = 33, labels[7] = 34 …"``; empty when not known."""
    labels = readings.utterances([index], lambda _: "")[0].labels or ()
    wrong = [(i, label) for i, label in enumerate(labels) if is_wrong(label)]
    if not wrong:
        return ""
    vocabulary = readings.get("vocabulary")
    named = ", ".join(f"labels[{i}] = {quoted(vocabulary, label)}" for i, label in wrong[:SHOWN_LABELS])
    return f": {named}" + (" …" if len(wrong) > SHOWN_LABELS else "")
