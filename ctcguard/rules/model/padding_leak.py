"""CTC802 padding-leak."""

from __future__ import annotations

from pydantic import Field

from ctcguard.finding import Finding, Severity
from ctcguard.readings import Readings
from ctcguard.rules._rule import Rule
from ctcguard.rules.model._passes import Parting, amount, changed, numbers, parting

FIXES = {
    "no-attention-mask": "give {place} a mask of the padded frames (src_key_padding_mask, attention_mask)",
    "normalisation-over-padding": "{place} takes its statistics from padded frames too: normalise single frames "
    "(LayerNorm over the features), or leave padded frames out of the mean and the deviation",
    "unmasked-convolution": "put 0 into the padded frames {before}: x.masked_fill(~valid, 0)",
    "bidirectional-rnn-unpacked": "pack its input: pack_padded_sequence(x, lengths, batch_first=True, "
    "enforce_sorted=False)",
    "padding-changes-output": "leave padded frames out {where}, or evaluate utterances of similar length together",
}
MEANT = (
    "leave it: wav2vec2 models with feat_extract_norm='group' are meant so, with zeros as padding and without a mask; "
    "keep utterances of similar length together, in evaluation too"
)


class PaddingLeak(Rule):
    """## What it does

    Checks that valid frames come out the same when more padding is appended to the batch. On request (`probe_model`).

    ## Why is this bad?

    The transcript of a clip then depends on the longest clip that it happens to be batched with. Error rates differ by
    batch size and by whether clips are sorted (22.6% and 35% in one report), and a clip alone, as in use, is one that
    the model was never trained on.

    ## In optax

    Not offered: the guard sees the loss of a JAX step, not the function that makes the logits. By hand: call that
    function on a batch and on the same batch with zeros appended; frames within the lengths must agree to rounding.

    ## Likely causes

    - `no-attention-mask`: attention looks at padded frames.
    - `normalisation-over-padding`: a norm over time takes padded frames into its mean and deviation.
    - `unmasked-convolution`: earlier layers have put something into padded frames, and a convolution looks that far.
    - `bidirectional-rnn-unpacked`: the backward direction of an RNN starts in the padding.
    - `padding-changes-output`: none of these was seen; the finding names the first module with another result.

    ## How to fix

    `no-attention-mask`: hand the lengths on as a mask. `unmasked-convolution`: zero padded frames before it.
    `bidirectional-rnn-unpacked`: `pack_padded_sequence`. `normalisation-over-padding`: normalise single frames, or with
    masked statistics. It worked when a clip alone and in a batch gives the same log-probs.

    ## Thresholds

    - `edge_fraction` (share of valid frames, 0.1): so many may change. Convolutions look a few frames ahead.

    The limit for one frame is that of CTC801: what rounding may do, measured for each dtype.

    ## Known problems

    A warning from the first greedy decoding that changes on, even if the loss falls as it should: training meets the
    padding that it is used to, a clip alone does not. Information while the greedy decoding of all utterances compared
    stays the same, for an unpacked RNN that changes only the last frames, and for `feat_extract_norm="group"` without a
    mask (wav2vec2-base), which is meant so. With fresh weights greedy decoding means little: look at the size of the
    change. Judged behind at least 8 frames of padding. Not tried where the model never meets padding (all utterances of
    a batch as long as each other and no lengths or mask given), where its time axis cannot be made longer, and for a
    mask that does not show how padding is marked. Where `input_lengths` count padding (CTC305), padded frames are
    compared as if they were valid.

    ## Example

    Fires:

    >>> import numpy as np
    >>> from ctcguard.readings import Readings
    >>> columns = {"padding_change": np.asarray([0.4]), "padding_changed_fraction": 1.0, "output_limit": 1e-4}
    >>> where = {"parting_place": "enc.0 (MultiheadAttention)", "parting_module": "MultiheadAttention"}
    >>> found = PaddingLeak().check(Readings({**columns, **where, "padding_frames": 16, "decodings_changed": 1}))
    >>> found.cause, found.severity.value
    ('no-attention-mask', 'warning')

    Use instead:

    >>> PaddingLeak().check(Readings({**columns, "padding_change": np.zeros(1), "padding_changed_fraction": 0.0}))

    ## References

    - https://github.com/huggingface/transformers/issues/21534 (wav2vec2: results depend on the padding)
    - https://github.com/pytorch/audio/issues/2242
    - https://github.com/speechbrain/speechbrain/issues/1597
    """

    code = "CTC802"
    severity = Severity.WARNING
    wants = ("padding_change", "padding_changed_fraction", "output_limit")
    causes = tuple(FIXES)
    explains = ()

    edge_fraction: float = Field(0.1, ge=0, le=1, description="share of valid frames that may change")

    def check(self, readings: Readings) -> Finding | None:
        """Fires when more than a few valid frames change, or any behind an unpacked RNN."""
        changes, share = readings.column("padding_change"), readings["padding_changed_fraction"]
        few = share <= self.edge_fraction
        worst = max(float(changes.max()), readings.get("edge_change", 0.0) if few else 0.0)
        unpacked = str(readings.get("unpacked_rnn") or "")
        if few and (not unpacked or worst <= readings["output_limit"]):
            return None
        place = parting(readings)
        cause = "bidirectional-rnn-unpacked" if few else _cause(place)
        same = few or bool(readings.get("meant_for_padding")) or readings.get("decodings_changed", 1) == 0
        rnn = f"{unpacked} is given a plain tensor, not a packed one"
        return self.finding(
            readings,
            cause=cause,
            evidence=rnn if few else place.evidence(),
            message=_message(readings, worst, few),
            fix=_fix(readings, cause, place),
            numbers=numbers(readings, "padding_change", "padding_changed_fraction", "edge_change", "padding_frames"),
            affected=changed(readings, "padding_change"),
            note=lambda i: f"changes by {changes[i]:.2g}",
            severity=Severity.INFORMATION if same else None,
        )


def _message(readings: Readings, worst: float, few: bool) -> str:
    more, share = readings.get("padding_frames", "some"), readings["padding_changed_fraction"]
    which = "the last ones" if few else f"{share:.0%} of them"
    decoded = ""
    if "decodings_compared" in readings:
        decoded = f"; {readings['decodings_changed']} of {readings['decodings_compared']} greedy decodings change"
    return (
        f"valid frames must not depend on the amount of padding, but with {more} frames of padding more {which} "
        f"change, by up to {amount(readings, worst)}{decoded}"
    )


def _cause(place: Parting) -> str:
    around = place.module if place.inside else f"{place.module} {place.parent}"
    if "Norm" in place.module and place.inside:
        return "normalisation-over-padding"
    if "ttention" in around or "Transformer" in place.module:
        return "no-attention-mask"
    if place.module in ("LSTM", "GRU", "RNN") and place.inside:
        return "bidirectional-rnn-unpacked"
    return "unmasked-convolution" if "Conv" in place.module and place.inside else "padding-changes-output"


def _fix(readings: Readings, cause: str, place: Parting) -> str:
    if cause == "normalisation-over-padding" and readings.get("meant_for_padding"):
        return MEANT
    return FIXES[cause].format(place=place.place, before=f"before {place.place}", where=place.where())
