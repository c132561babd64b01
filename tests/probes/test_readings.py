"""Every reading, on every library, against float64 loops."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from ctcguard.call import ctc_call
from ctcguard.probes import CONTRACT, DISTRIBUTION, measure, one_utterance, unpack
from tests.reference.readings import readings

BLANK = 2
ONE = [functools.partial(one_utterance, index=index) for index in range(4)]
ROWS = ((1, 1, 3), (0, 4, 0), (), (3,))
LENGTHS = (12, 9, 5, 1)
Measure = Callable[..., dict[str, Any]]


def scores(seed: int = 0, classes: int = 5) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(4, 12, classes)).astype(np.float32)
    return values - np.log(np.exp(values).sum(-1, keepdims=True))


def padded(rows: Any, room: int = 4, fill: int = 1) -> np.ndarray:
    return np.asarray([[*row, *[fill] * (room - len(row))] for row in rows])


def given(rows: Any = ROWS, **other: Any) -> dict[str, Any]:
    lengths = {"input_lengths": np.asarray(LENGTHS), "target_lengths": np.asarray([len(row) for row in rows])}
    return {"log_probs": scores(), "targets": padded(rows), "blank": BLANK, **lengths, **other}


def agrees(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-6, atol=2e-6, err_msg=name)


def test_padded_targets(measured: Measure) -> None:
    found = measured(**given(losses=np.asarray([3.0, np.nan, np.inf, -0.5], np.float32)))
    expected = readings(scores(), ROWS, LENGTHS, BLANK)
    agrees(found, {**expected, "losses": [3.0, np.nan, np.inf, -0.5]})
    assert found.keys() == {*expected, "losses", "fingerprint", "last_label", "tail_run", "transcript_room"}


def test_concatenated_targets_give_the_same(measured: Measure) -> None:
    row = np.asarray([label for labels in ROWS for label in labels])
    agrees(measured(**given(targets=row)), readings(scores(), ROWS, LENGTHS, BLANK))


def test_jax_without_jit() -> None:
    call = {k: jnp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in given().items()}
    found = unpack(*measure(ctc_call(**call), CONTRACT + DISTRIBUTION))
    agrees(found, readings(scores(), ROWS, LENGTHS, BLANK))


@pytest.mark.parametrize("lengths", [list, tuple])
def test_lengths_as_sequences(measured: Measure, lengths: type) -> None:
    call = given(input_lengths=lengths(LENGTHS), target_lengths=lengths(map(len, ROWS)))
    agrees(measured(**call), readings(scores(), ROWS, LENGTHS, BLANK))


@pytest.mark.parametrize("given_by", ["targets", "target_lengths"])
def test_a_sequence_beside_arrays(measured: Measure, given_by: str) -> None:
    call = given()
    call[given_by] = call[given_by].tolist()
    agrees(measured(**call), readings(scores(), ROWS, LENGTHS, BLANK))


def test_without_a_batch(measured: Measure) -> None:
    call = {"log_probs": scores()[0], "targets": np.asarray(ROWS[0]), "blank": BLANK}
    found = measured(**call, input_lengths=12, target_lengths=3)
    agrees(found, readings(scores()[:1], ROWS[:1], LENGTHS[:1], BLANK))


def test_time_first_is_a_view_of_the_same(measured: Measure) -> None:
    strided = np.ascontiguousarray(scores().transpose(1, 0, 2))
    call = given(log_probs=strided, batch_first=False)
    agrees(measured(**call), readings(scores(), ROWS, LENGTHS, BLANK))


def test_faulty_labels_are_counted_within_their_length_only(measured: Measure) -> None:
    rows = ((5, 2, 1, 2), (-1, -100), (2, 2), ())
    call = given(rows, targets=padded(rows, room=6, fill=99))
    found = measured(**call)
    agrees(found, readings(scores(), rows, LENGTHS, BLANK))
    assert (found["label_max"], found["label_min"]) == (5, -100)
    assert found["blanks_before_label"].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("kind", [np.int32, np.int16, np.uint8, np.float32, np.float64])
def test_dtypes_of_targets_and_lengths(measured: Measure, kind: type) -> None:
    call = given()
    for name in ("targets", "input_lengths", "target_lengths"):
        call[name] = call[name].astype(kind)
    agrees(measured(**call), readings(scores(), ROWS, LENGTHS, BLANK))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_in_a_valid_frame(measured: Measure, bad: float) -> None:
    call = given(log_probs=scores())
    call["log_probs"][1, 3, 4] = bad
    found = measured(**call)
    agrees(found, readings(call["log_probs"], ROWS, LENGTHS, BLANK))
    assert found["non_finite_frames"].tolist() == [0, 0 if bad == -np.inf else 1, 0, 0]


def test_a_frame_of_nothing_but_minus_inf(measured: Measure) -> None:
    call = given(log_probs=scores())
    call["log_probs"][1, 3] = -np.inf
    found = measured(**call)
    agrees(found, readings(call["log_probs"], ROWS, LENGTHS, BLANK))
    assert found["non_finite_frames"].tolist() == [0, 1, 0, 0]
    assert found["logsumexp_min"] == -np.inf


def test_garbage_beyond_the_lengths_is_not_counted(measured: Measure) -> None:
    garbage, clean = given(log_probs=scores()), measured(**given())
    garbage["log_probs"][1, 9:] = np.nan
    garbage["log_probs"][2, 5:] = np.inf
    found = measured(**garbage)
    assert found["non_finite_padding_frames"].tolist() == [0, 3, 7, 0]
    ignored = ("non_finite_padding_frames", "logsumexp_time_abs_max", "logsumexp_batch_abs_max")
    ignored += ("leading_change", "trailing_change")
    agrees(found, {name: value for name, value in clean.items() if name not in ignored})


def test_no_valid_frame_at_all(measured: Measure) -> None:
    found = measured(**given(input_lengths=np.zeros(4, int)))
    agrees(found, readings(scores(), ROWS, [0] * 4, BLANK))
    assert (found["sample_min"], found["sample_max"], found["logsumexp_max"]) == (np.inf, -np.inf, 0)


@pytest.mark.parametrize(("bits", "fits"), [(8, (1, 1)), (11, (0, 1)), (12, (0, 0)), (24, (0, 0))])
def test_half_precision_is_recognised_after_a_cast_up(measured: Measure, bits: int, fits: tuple[int, int]) -> None:
    mantissa, exponent = np.frexp(scores())
    rounded = np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(np.float32)
    found = measured(**given(log_probs=rounded))
    assert (found["fits_bfloat16"], found["fits_float16"]) == fits


@pytest.mark.parametrize(("axis", "name"), [(1, "time"), (0, "batch")])
def test_a_softmax_over_another_axis(measured: Measure, axis: int, name: str) -> None:
    values = np.random.default_rng(3).normal(size=(4, 12, 5)).astype(np.float32)
    found = measured(**given(log_probs=values - np.log(np.exp(values).sum(axis, keepdims=True))))
    assert found[f"logsumexp_{name}_abs_max"] < 1e-5
    assert max(-found["logsumexp_min"], found["logsumexp_max"]) > 0.1


def test_unknown_labels_and_where_they_stand(measured: Measure) -> None:
    rows = ((4, 4, 1, 4), (1, 4, 3), (), (4,))
    columns = {
        "unknown_labels": [3, 1, 0, 1],
        "unknown_runs": [2, 1, 0, 1],
        "unknown_first": [1, 0, 0, 1],
        "unknown_last": [1, 0, 0, 1],
    }
    agrees(measured(**given(rows, unknown=4, targets=padded(rows, fill=4))), columns)
    row = np.asarray([label for labels in rows for label in labels])
    agrees(measured(**given(rows, unknown=4, targets=row)), columns)


def test_transcripts(measured: Measure) -> None:
    rows = ((1, 3, 3), (), (4,), (1, 3, 3))
    found = measured(**given(rows))
    agrees(found, {"last_label": [3, -1, 4, 3], "tail_run": [2, 0, 1, 2]})
    prints = found["fingerprint"].tolist()
    assert prints[0] == prints[3]
    assert len(set(prints)) == 3
    swapped = measured(**given(((3, 1, 3), *rows[1:])))["fingerprint"].tolist()
    assert swapped[0] != prints[0]
    assert swapped[1:] == prints[1:]


def test_labels_removed_from_within_a_transcript(measured: Measure) -> None:
    labels = np.asarray([[2, 1, 2, 3, 2, -100], [1, 3, -100, -100, -100, -100], [2] * 6, [1, 2, 2, 2, 1, 2]])
    found = measured(**given(given_labels=labels))
    agrees(found, {"removed_labels": [1, 0, 0, 3], "given_label_count": [3, 2, 0, 5]})


def test_frames_that_repeat_at_the_end(measured: Measure) -> None:
    values = scores()
    values[0, 8:] = values[0, 11]
    values[1, 5:] = values[1, 11]
    values[2, 4] = np.nan
    assert measured(**given(log_probs=values))["tail_frames"].tolist() == [4, 4, 0, 1]


@pytest.mark.parametrize("tied", [0.0, 3.0])
def test_classes_that_tie_share_a_frame(measured: Measure, tied: float) -> None:
    found = measured(**given(log_probs=np.full((4, 12, 5), tied, np.float32)))
    assert found["blank_fraction"] == pytest.approx(0.2)
    assert (found["top_class"], found["top_fraction"]) == (0, pytest.approx(0.2))


@pytest.mark.parametrize("kind", ["log_probs", "logits"])
@pytest.mark.parametrize("concatenated", [False, True])
@pytest.mark.parametrize("index", range(4))
def test_one_utterance_holds_all_that_its_loss_depends_on(
    measured: Measure, kind: str, concatenated: bool, index: int
) -> None:
    rows = ((1, 1, 3), (0, 4, 0), (3,), (4, 4))
    call = given(rows, losses=np.arange(4, dtype=np.float32))
    call[kind] = call.pop("log_probs") + (3 if kind == "logits" else 0)
    if concatenated:
        call["targets"] = np.asarray([label for labels in rows for label in labels])
    found = measured(probes=(ONE[index],), **call)
    labels, log_probs = rows[index], scores()[index]
    expected = np.concatenate([log_probs[:, [BLANK]], log_probs[:, list(labels)]], axis=1)
    np.testing.assert_allclose(found["exact_log_probs"][:, : len(labels) + 1], expected, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(found["exact_end_log_probs"], log_probs[:, [0, -1]], rtol=2e-6, atol=2e-6)
    assert found["exact_labels"][0, : len(labels)].tolist() == list(labels)
    lengths = LENGTHS[index], len(labels), index, index
    assert tuple(found[f"exact_{name}"] for name in ("frames", "label_count", "index", "loss")) == lengths


def test_logits_have_no_alignment_cost(measured: Measure) -> None:
    call = given()
    call["logits"] = call.pop("log_probs") + 3
    found = measured(**call)
    assert "alignment_cost" not in found
    assert found["score_max"][0] == pytest.approx(scores()[0].max() + 3)
