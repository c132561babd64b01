"""Probes: arrays in, one small packed array out, and back to named readings on the host.

`CONTRACT` probes look at targets and lengths; they are cheap and run before the loss. `DISTRIBUTION` probes look at the
scores and losses. `EVIDENCE` is measured with them, or, of a call on the host, when
a rule asks for it (`evidence`). One whole utterance (`one_utterance`) is looked at at the first call, and rarely after.
What is measured of which call, `ctcguard.depth` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ctcguard._array import Array, HostArray, namespace, quiet, to_numpy
from ctcguard.call import CTCCall
from ctcguard.packing import Layout, pack, unpack
from ctcguard.probes.lengths import lengths
from ctcguard.probes.log_probs import (
    constant_tails,
    frame_maxima,
    greedy,
    normalisation,
    other_axes,
    precision,
    probabilities,
)
from ctcguard.probes.loss import alignment_cost, has_alignments, losses
from ctcguard.probes.paddings import edge_changes
from ctcguard.probes.targets import FAULTS, label_faults, label_range, removed_labels, transcripts, unknown_labels
from ctcguard.probes.utterance import one_utterance

Probe = Callable[[CTCCall], dict[str, Array]]

CONTRACT: tuple[Probe, ...] = (lengths, label_range, label_faults, unknown_labels, removed_labels, transcripts)
BRIEF_CONTRACT: tuple[Probe, ...] = (lengths, label_range, unknown_labels, removed_labels, transcripts)
EXACT: tuple[Probe, ...] = (losses, frame_maxima)
SAMPLED: tuple[Probe, ...] = (normalisation, greedy)
EVIDENCE: dict[Probe, tuple[str, ...]] = {
    precision: ("fits_bfloat16", "fits_float16"),
    probabilities: ("row_sum_error", "sample_min"),
    other_axes: ("logsumexp_time_abs_max", "logsumexp_batch_abs_max"),
    constant_tails: ("tail_frames",),
    edge_changes: ("leading_change", "trailing_change"),
    alignment_cost: ("alignment_cost",),
}
"""What a rule looks at only when something else is conspicuous, with the names of what each returns."""
DISTRIBUTION = (*EXACT, *SAMPLED, *EVIDENCE)
THOROUGH: tuple[Probe, ...] = (losses, partial(frame_maxima, every_frame=True), *SAMPLED)
"""When a loss is known to be bad: then the frames are looked for."""


__all__ = [
    "CONTRACT",
    "DISTRIBUTION",
    "EVIDENCE",
    "EXACT",
    "SAMPLED",
    "THOROUGH",
    "Layout",
    "Probe",
    "contract",
    "evidence",
    "label_range",
    "lengths",
    "losses",
    "measure",
    "one_utterance",
    "read",
    "unpack",
]


def measure(call: CTCCall, probes: Sequence[Probe], beside: Array | None = None) -> tuple[Array, Layout]:
    """Run probes and pack what they return into one array.

    Parameters
    ----------
    call : CTCCall
        The call to measure.
    probes : sequence of callables
        `CONTRACT`, `DISTRIBUTION` or both.
    beside : array, optional
        Where the packed array goes: see `ctcguard.packing.pack`.

    Returns
    -------
    packed : array, (scalars + columns × batch + sizes of blocks,)
        Nothing has waited for a device.
    layout : Layout
        What stands where; static for a shape.
    """
    with quiet():  # a NaN or an infinity is a result here, not an accident to be warned of
        return pack({name: value for probe in probes for name, value in probe(call).items()}, call.batch, beside)


def read(call: CTCCall, probes: Sequence[Probe]) -> dict[str, float | HostArray]:
    """Run probes on a call on the host, where nothing has to travel: the readings by name."""
    with quiet():
        values = {name: value for probe in probes for name, value in probe(call).items()}
    return {name: float(value) if value.ndim == 0 else to_numpy(value) for name, value in values.items()}


def contract(call: CTCCall) -> dict[str, float | HostArray]:
    """Readings of the `CONTRACT` probes of a call: faults of labels are counted when there are any."""
    found = read(call, BRIEF_CONTRACT)
    lengths = found["target_lengths"]
    right = found["label_max"] < call.classes and found["label_min"] >= 0 and found["blank_count"] == 0
    return found | (
        dict.fromkeys(FAULTS, namespace(lengths).zeros_like(lengths)) if right else read(call, (label_faults,))
    )


def evidence(call: CTCCall, probes: Sequence[Probe]) -> dict[str, Callable[[], dict[str, float | HostArray]]]:
    """By name of a reading, how to measure it: for a call on the host, when a rule asks for it."""
    if 0 in call.scores.shape:
        return {}
    able = [probe for probe in probes if probe is not alignment_cost or has_alignments(call)]
    return {name: later for probe in able for later in [partial(read, call, (probe,))] for name in EVIDENCE[probe]}
