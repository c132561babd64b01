"""CTC802."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ctcguard.readings import Readings
from ctcguard.rules.model.padding_leak import FIXES, PaddingLeak

LIMIT = 1e-4
RNN = {"unpacked_rnn": "rnn (LSTM)"}


def readings(share: float, *changes: float, **other: Any) -> Readings:
    values = {"padding_change": np.asarray(changes or (0.5,)), "padding_changed_fraction": share, "output_limit": LIMIT}
    return Readings({**values, "padding_frames": 16, **other})


def place(module: str, inside: bool | None = True, parent: str = "the model (Net)") -> dict[str, Any]:
    where = {"parting_place": f"x ({module})", "parting_module": module, "parting_parent": parent}
    return {**where, "parting_inside": inside}


@pytest.mark.parametrize("share", [0.0, 0.05, 0.1])
def test_the_few_frames_that_a_convolution_looks_ahead_are_healthy(share: float) -> None:
    assert PaddingLeak().check(readings(share, 0.5, edge_change=2.0)) is None
    assert PaddingLeak().check(readings(share, 0.5, **place("Conv1d"))) is None
    assert PaddingLeak().check(readings(share, 0.5, unpacked_rnn="")) is None


@pytest.mark.parametrize("share", [0.101, 1.0, float("nan")])
def test_fires(share: float) -> None:
    finding = PaddingLeak().check(readings(share, 0.0, 0.5, decodings_changed=1, decodings_compared=2))
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity.value) == ("CTC802", "padding-changes-output", "warning")
    assert finding.affected == {1}
    assert finding.message.endswith("at most 0.0001); 1 of 2 greedy decodings change")
    assert "with 16 frames of padding more" in finding.message


def test_the_share_is_a_threshold() -> None:
    assert PaddingLeak(edge_fraction=0.5).check(readings(0.5)) is None
    assert PaddingLeak(edge_fraction=0.0).check(readings(0.01)) is not None


@pytest.mark.parametrize(
    ("other", "severity"),
    [
        ({}, "warning"),
        ({"decodings_changed": 1, "decodings_compared": 4}, "warning"),
        ({"decodings_changed": 0, "decodings_compared": 4}, "information"),
        ({"decodings_changed": 4, "decodings_compared": 4, "meant_for_padding": True}, "information"),
    ],
)
def test_information_when_nobody_reads_anything_else(other: dict[str, Any], severity: str) -> None:
    finding = PaddingLeak().check(readings(1.0, **other))
    assert finding is not None
    assert finding.severity.value == severity


@pytest.mark.parametrize(
    ("share", "change", "edge", "fires"),
    [(0.0, 0.0, 0.0, False), (0.0, LIMIT, LIMIT, False), (0.0, 0.0, 0.3, True), (0.05, 0.3, 0.0, True)],
)
def test_an_unpacked_rnn_is_told_when_anything_changes(share: float, change: float, edge: float, fires: bool) -> None:
    finding = PaddingLeak().check(readings(share, change, edge_change=edge, decodings_changed=2, **RNN))
    assert (finding is not None) is fires
    if finding is not None:
        assert (finding.cause, finding.severity.value) == ("bidirectional-rnn-unpacked", "information")
        assert "rnn (LSTM)" in finding.evidence
        assert "the last ones change, by up to 0.3" in finding.message


@pytest.mark.parametrize(
    ("where", "cause"),
    [
        (place("GroupNorm"), "normalisation-over-padding"),
        (place("GroupNorm", inside=False), "padding-changes-output"),
        (place("MultiheadAttention"), "no-attention-mask"),
        (place("TransformerEncoderLayer"), "no-attention-mask"),
        (place("Linear", inside=False, parent="enc.0.attention (HubertAttention)"), "no-attention-mask"),
        (place("Linear", inside=False), "padding-changes-output"),
        (place("Conv1d"), "unmasked-convolution"),
        (place("LSTM"), "bidirectional-rnn-unpacked"),
        (place("GRU", inside=None), "padding-changes-output"),
        ({}, "padding-changes-output"),
    ],
)
def test_each_cause(where: dict[str, Any], cause: str) -> None:
    finding = PaddingLeak().check(readings(1.0, **where))
    assert finding is not None
    assert finding.cause == cause
    assert "{" not in finding.fix
    if where:
        assert where["parting_place"] in finding.evidence


def test_every_cause_has_a_fix() -> None:
    assert set(FIXES) == set(PaddingLeak.causes)


def test_group_norm_without_a_mask_is_left_alone() -> None:
    finding = PaddingLeak().check(readings(1.0, meant_for_padding=True, **place("GroupNorm")))
    assert finding is not None
    assert finding.fix.startswith("leave it: wav2vec2 models with feat_extract_norm='group' are meant so")
