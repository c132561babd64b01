"""Where NaN and infinities among the scores come from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctcguard._array import HostArray
from ctcguard.provenance import UNKNOWN, Provenance
from ctcguard.readings import Readings

MASKING = frozenset({"masked_fill", "where", "index_fill", "index_put", "masked_scatter"})
"""Steps of a provenance that can set classes to −inf."""


class Cause(NamedTuple):
    """A cause slug, what selected it, and what to write instead."""

    slug: str
    evidence: str
    fix: str


def held(readings: Readings, i: int) -> str:
    """What the bad frames of an utterance hold: the worst of it."""
    largest = readings["score_max"][i]
    return "NaN" if np.isnan(largest) else "+inf" if np.isposinf(largest) else "nothing but −inf"


def of_frames(readings: Readings, bad: HostArray, index: int, seen: str) -> Cause:
    """Why valid frames are not finite; ``seen`` is what was seen in the worst utterance."""
    kind = held(readings, index)
    if kind == "+inf":
        return Cause("overflow", seen, "compute the head in float32, and look for a division by zero before it")
    if kind != "NaN":
        return Cause("masking", seen, "set no valid frame to −inf: say with input_lengths where an utterance ends")
    if bad.size > 1 and "input_lengths" in readings and (bad >= readings["input_lengths"]).all():
        fix = "look for NaN in the weights, all(p.isfinite().all() for p in model.parameters()), then in the features"
        return Cause("whole-batch", f"every frame of all {bad.size} utterances is NaN: not single clips", fix)
    fix = f"look at the features of utterance {index}: isfinite(features[{index}]).all() must hold before the model"
    others = f"the other {np.sum(bad == 0)} are finite" if bad.size > 1 else "it is the only one: features, or weights"
    return Cause("non-finite-features", f"{seen} in utterance {index}; {others}", fix)


def of_alignments(readings: Readings) -> Cause:
    """Why −inf stands on every alignment."""
    provenance: Provenance = readings.get("provenance", UNKNOWN)
    share = readings.get("minus_inf_fraction", 0)
    unmask = "mask only classes that no target contains, never the blank, with values that cannot add up to −inf"
    if {"log", "softmax"} <= provenance.ops():
        fix = "write log_softmax(x, -1) for log(softmax(x, -1)): it does not underflow"
        return Cause("log-of-softmax", f"the scores were made by {provenance}", fix)
    if provenance.ops() & (MASKING | {"log_softmax"}):
        return Cause("masking", f"the scores were made by {provenance}", unmask)
    if readings["expects"] == "logits":
        return Cause("masking", f"{share:.1%} of the sampled logits are −inf, which this loss turns into NaN", unmask)
    if share > 0:
        fix = "write log_softmax(x, -1) for log(softmax(x, -1)), and mask no class that a target contains"
        evidence = f"{share:.1%} of the sampled values are −inf; log_softmax of finite logits has none"
        return Cause("log-of-softmax", evidence, fix)
    return Cause("masking", "no −inf, but values so low that they add up to it", unmask)
