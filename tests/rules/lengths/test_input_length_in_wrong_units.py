"""CTC304: first what must stay silent."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ctcguard
from ctcguard.finding import Finding
from ctcguard.readings import Readings
from ctcguard.rules.lengths.input_length_in_wrong_units import InputLengthInWrongUnits

History = list[tuple[float, float]]
Column = np.ndarray[Any, np.dtype[np.int64]]


def check(history: History, lengths: list[float] | None = None, rule: Any = None, **more: Any) -> Finding | None:
    """The last entry of the history is the call that is judged."""
    frames, longest = history[-1]
    columns = {"input_lengths": np.asarray(lengths or [longest, longest / 2], dtype=float)}
    readings = Readings({**columns, "frames": frames, "length_history": tuple(history), **more})
    return (rule or InputLengthInWrongUnits()).check(readings)


BUCKETS = np.asarray([50, 100, 200, 400, 800])

HEALTHY: dict[str, Callable[[np.random.Generator, Column], tuple[Column, Column]]] = {
    "fills the axis": lambda rng, clips: (clips, clips),
    "rounded differently": lambda rng, clips: (clips, clips - rng.integers(0, 3, len(clips))),
    "random crops": lambda rng, clips: (clips, clips - rng.integers(0, 1 + clips // 4)),
    "one static width": lambda rng, clips: (np.full_like(clips, 800), clips),
    "static width, short clips": lambda rng, clips: (np.full_like(clips, 800), 20 + clips % 40),
    "static width, equal clips": lambda rng, clips: (np.full_like(clips, 800), np.full_like(clips, 400)),
    "buckets": lambda rng, clips: (BUCKETS[np.searchsorted(BUCKETS, clips)], clips),
    "padded to a multiple": lambda rng, clips: (-(-clips // 64) * 64, clips),
}
"""What trainings give for the longest utterances of batches: frames and longest input length."""


@pytest.mark.parametrize("shortest", [5, 60])
@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_trainings(kind: str, shortest: int) -> None:
    rng = np.random.default_rng(7)
    for _ in range(40):
        clips = rng.integers(shortest, 10 * shortest, 120)
        history = [(float(frames), float(longest)) for frames, longest in zip(*HEALTHY[kind](rng, clips), strict=True)]
        for end in range(1, len(history) + 1, 3):
            assert check(history[max(0, end - 32) : end]) is None


@pytest.mark.parametrize(
    ("frames", "lengths", "labels"),
    [
        (50, [50, 20], [3, 3]),
        (50, [25, 20], [3, 3]),  # one call alone says nothing
        (800, [1], [5]),  # one utterance alone neither: CTC301 sees it
        (50, [1, 1], [1, 0]),  # keywords of a frame
        (50, [0, 0], [0, 0]),  # items that only fill the batch
        (9, [1, 1], [5, 5]),  # narrower than min_frames
        (9, [18, 9], [2, 2]),
        (50, [51, 50], [2, 2]),  # rounding: CTC302's
        (50, [70, 50], [2, 2]),
        (50, [120, 50], [2, 2]),  # no multiple
        (50, [math.nan, 50], [2, 2]),  # CTC302's
        (math.nan, [200, 50], [2, 2]),
        (50, [], []),
    ],
)
def test_healthy_calls(frames: float, lengths: list[float], labels: list[float]) -> None:
    columns = {"input_lengths": np.asarray(lengths, dtype=float), "target_lengths": np.asarray(labels, dtype=float)}
    assert InputLengthInWrongUnits().check(Readings({**columns, "frames": frames})) is None


@pytest.mark.parametrize(
    ("frames", "longest", "factor"),
    [(50, 100, 2), (50, 97, 2), (50, 103, 2), (50, 203, 4), (49, 16_000, 327), (10, 20, 2), (100, 16_400, 164)],
)
def test_not_subsampled(frames: float, longest: float, factor: int) -> None:
    finding = check([(frames, longest)])
    assert finding is not None
    assert (finding.code, finding.cause, finding.severity) == ("CTC304", "not-subsampled", "error")
    assert f"is {longest:.0f}, but log_probs has {frames:.0f} frames" in finding.message
    assert f"about {factor} times" in finding.evidence
    assert ("audio samples" in finding.evidence) == (factor > 100)
    assert f"by about {factor}" in finding.fix
    assert "model._get_feat_extract_output_lengths" in finding.fix


@pytest.mark.parametrize(("longest", "fires"), [(103, True), (104, False), (97, True), (96, False)])
def test_tolerance(longest: float, fires: bool) -> None:
    assert (check([(50, longest)]) is not None) == fires
    assert check([(50, 104)], rule=InputLengthInWrongUnits(tolerance_frames=2)) is not None


@pytest.mark.parametrize("lengths", [[1.0, 0.0, 0.0], [1.0, 0.73, 0.2], [1.0, 1.0, 0.9]])
def test_fraction(lengths: list[float]) -> None:
    finding = check([(50, 1)], lengths, target_lengths=np.asarray([4.0, 3.0, 2.0]))
    assert finding is not None
    assert (finding.cause, finding.severity) == ("fraction", "error")
    assert "(relative_lengths * 50).round()" in finding.fix
    assert check([(50, 1)], lengths) is not None  # without the targets too


@pytest.mark.parametrize(("padded_first", "fires"), [(0.0, True), (15.0, False), (math.nan, False)])
def test_a_frame_after_padding_is_no_share(padded_first: float, fires: bool) -> None:
    """For a loss that takes paddings: inverted ones leave one frame of the longest, at its end (CTC302)."""
    columns = {"padded_first_frames": np.full(2, padded_first), "starts_padded_frames": np.ones(2)}
    found = check([(16.0, 1.0)], [1.0, 1.0], target_lengths=np.full(2, 3.0), **columns)
    assert (found is not None) is fires


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_subsampled_twice(factor: int) -> None:
    rng = np.random.default_rng(factor)
    frames = rng.integers(80, 400, 8).astype(float)
    history = [(t, float(round(t / factor + rng.uniform(-1, 1)))) for t in frames]
    finding = check(history)
    assert finding is not None
    assert (finding.cause, finding.severity) == ("subsampled-twice", "warning")
    assert finding.message.startswith("in 8 calls with 8 widths the longest input length was always ")
    assert f"always 1/{factor} of the time axis (±1.5 frames)" in finding.message
    assert f"the longest should be {frames[-1]:.0f}, not {history[-1][1]:.0f}" in finding.fix


TWICE: History = [(t, t / 2) for t in (100.0, 120.0, 140.0, 160.0, 180.0, 200.0, 220.0, 240.0)]


@pytest.mark.parametrize(
    ("history", "fires"),
    [
        (TWICE, True),  # at history_calls
        (TWICE[1:], False),  # under it
        ([(100.0, 50.0)] * 6 + TWICE[1:3], True),  # at history_widths
        ([(100.0, 50.0)] * 7 + TWICE[1:2], False),  # under it
        ([(t, t / 2 + 1.5) for t, _ in TWICE], True),  # at tolerance_frames
        ([(t, t / 2 + 1.6) for t, _ in TWICE], False),  # over it
        ([(t / 5, t / 10) for t, _ in TWICE], True),  # 20 frames and more: at min_frames × 2
        ([(t / 5.1, t / 10.2) for t, _ in TWICE], False),  # one call is under it
        ([*TWICE, (300.0, 300.0)], False),  # once right, never wrong
        ([*TWICE, (300.0, math.nan)], False),
        ([*TWICE, (math.nan, 100.0)], False),
    ],
)
def test_thresholds_of_the_history(history: History, fires: bool) -> None:
    assert (check(history) is not None) == fires


@pytest.mark.parametrize(
    ("unit", "fires"),
    [(50, True), (25, True), (10, True), (9.9, False), (16, True)],  # 1/10 is the largest share
)
def test_seconds(unit: float, fires: bool) -> None:
    history = [(t * unit, t) for t in (4.0, 5.0, 7.0, 9.0, 12.0, 13.0, 15.0, 20.0)]
    finding = check(history)
    assert (finding is not None) == fires
    if finding is not None:
        assert (finding.cause, finding.severity) == ("seconds", "warning")
        assert f"one unit is about {unit:.0f} frames" in finding.evidence
        assert f"here the longest should be {20 * unit:.0f}, not 20" in finding.fix


def test_whole_seconds_and_a_constant() -> None:
    whole = [(t, float(t // 50)) for t in (220.0, 260.0, 333.0, 420.0, 512.0, 640.0, 700.0, 777.0)]
    finding = check(whole)
    assert finding is not None
    assert finding.cause == "seconds"
    assert check([(t, 6.0) for t, _ in whole]) is None  # does not grow with the frames


def test_it_is_the_root_of_ctc302_and_ctc301() -> None:
    call = {
        "log_probs": np.log(np.full((2, 50, 4), 0.25)),
        "targets": [[1, 2]] * 2,
        "target_lengths": [2, 2],
        "blank": 0,
    }
    assert ctcguard.diagnose(**call, input_lengths=[50, 20]) == ()
    (verdict,) = ctcguard.diagnose(**call, input_lengths=[200, 80])
    assert [finding.code for finding in verdict.findings()] == ["CTC304", "CTC302"]
    (verdict,) = ctcguard.diagnose(**call, input_lengths=[1, 0])
    assert [finding.code for finding in verdict.findings()] == ["CTC304", "CTC301", "CTC302"]
    assert verdict.cause == "fraction"
