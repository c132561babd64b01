"""How much is measured of which call: contracts always, the distribution in short, and from time to time in full."""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

import numpy as np

from ctcguard._array import is_host
from ctcguard.call import CTCCall
from ctcguard.clock import ALWAYS_CALLS
from ctcguard.probes import EVIDENCE, EXACT, SAMPLED, SCREEN, SCREEN_EVIDENCE, THOROUGH, Probe, losses, one_utterance

LOOK_CALLS: Final = 8
"""After the first calls, one in so many is looked at in full: what it shows alone does not come and go."""
EXACT_LOSS_CALLS: Final = 1024
"""Of so many calls, the first has the loss of one utterance computed exactly (CTC505)."""


class Depth(NamedTuple):
    """What to measure of the scores and losses of a call.

    Attributes
    ----------
    probes : tuple of Probe
        Now.
    evidence : tuple of Probe
        Now too, or when a rule asks for it (`ctcguard.probes.evidence`).
    """

    probes: tuple[Probe, ...]
    evidence: tuple[Probe, ...] = ()


CONTRACTS = Depth((losses,))
BRIEF = Depth(SCREEN, SCREEN_EVIDENCE)
FULL = Depth(EXACT + SAMPLED, tuple(EVIDENCE))
EVERY_FRAME = Depth(THOROUGH, tuple(EVIDENCE))


def depth_of(call: CTCCall, number: int, over_budget: bool) -> Depth:
    """What to measure of the call with that number, from 1 on. A loss that is known to be bad is no time to save."""
    bad = _suspicious(call)
    if number % EXACT_LOSS_CALLS == 1 and call.batch:
        one = partial(one_utterance, index=number // EXACT_LOSS_CALLS % call.batch)
        depth = EVERY_FRAME if bad else FULL
        return depth._replace(probes=(*depth.probes, one))
    if bad:
        return EVERY_FRAME
    if over_budget:
        return CONTRACTS
    return FULL if number <= ALWAYS_CALLS or number % LOOK_CALLS == 0 else BRIEF


def _suspicious(call: CTCCall) -> bool:
    """Whether a loss is known that is not finite and above 0."""
    if call.losses is None or not is_host(call.losses) or 0 in call.losses.shape:
        return False
    found = np.asarray(call.losses)
    return not 0 < found.min() <= found.max() < np.inf
