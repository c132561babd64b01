"""How much is measured of which call: contracts and losses always, the distribution as often as the budget allows."""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

import numpy as np

from ctcguard._array import is_host
from ctcguard.call import CTCCall
from ctcguard.probes import EVIDENCE, EXACT, SAMPLED, THOROUGH, Probe, losses, one_utterance
from ctcguard.sound import sound_losses

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
FULL = Depth(EXACT + SAMPLED, tuple(EVIDENCE))
EVERY_FRAME = Depth(THOROUGH, tuple(EVIDENCE))


def exact(number: int) -> bool:
    """Whether the call with that number, from 1 on, has the loss of one utterance computed exactly."""
    return number % EXACT_LOSS_CALLS == 1


def depth_of(call: CTCCall, number: int, brief: bool) -> Depth:
    """What to measure of the call with that number. A loss that is known to be bad is no time to save."""
    depth = EVERY_FRAME if _suspicious(call) else CONTRACTS if brief else FULL
    if exact(number) and call.batch:
        one = partial(one_utterance, index=number // EXACT_LOSS_CALLS % call.batch)
        return depth._replace(probes=(*depth.probes, one))
    return depth


def _suspicious(call: CTCCall) -> bool:
    """Whether a loss is known that is not finite and above 0."""
    if call.losses is None or not is_host(call.losses) or 0 in call.losses.shape:
        return False
    return not sound_losses(np.asarray(call.losses).tolist())
