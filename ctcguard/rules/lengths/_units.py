"""What input lengths are counted in, when it is not frames of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ctcguard.finding import Severity

FACTORS = (2, 3, 4, 8)
SAMPLES = 64
"""A factor from which on lengths are audio samples rather than features."""
JITTER_FRACTION = 0.1
CORRELATION = 0.9
"""Of lengths and frames in a history: whole seconds of 1 to 3 s have 0.94; 8 pairs reach 0.9 by chance 1 in 800."""

History = Sequence[tuple[float, float]]
"""Frames and longest input length of earlier calls."""


class Cause(NamedTuple):
    """A cause slug, the measurement, what selected it, what to write instead, and how bad it is."""

    slug: str
    message: str
    evidence: str
    fix: str
    severity: Severity = Severity.ERROR


class Enough(NamedTuple):
    """What a history must hold: calls of at least so many frames, and so many different numbers of frames."""

    frames: int
    calls: int
    widths: int

    def holds(self, frames: np.ndarray, factor: int = 1) -> bool:
        """Whether enough calls are long enough for a length of ``frames / factor`` to say something."""
        long = frames[frames >= self.frames * factor]
        return len(long) >= self.calls and len(np.unique(long)) >= self.widths


def multiple(lengths: np.ndarray, frames: float, tolerance_frames: float) -> Cause | None:
    """Lengths before subsampling: the longest is k ≥ 2 times the time axis."""
    longest = float(lengths.max())
    if not 1.5 * frames < longest < np.inf:
        return None
    factor = round(longest / frames)
    if abs(longest / factor - frames) > tolerance_frames:
        return None
    what = "audio samples" if factor >= SAMPLES else "frames before the subsampling"
    return Cause(
        "not-subsampled",
        f"the longest input length is {longest:.0f}, but log_probs has {frames:.0f} frames",
        f"about {factor} times the time axis: {what}",
        f"count frames of log_probs: subsample the lengths as the model does, by about {factor} "
        "(Hugging Face: model._get_feat_extract_output_lengths(lengths))",
    )


def relative(lengths: np.ndarray, labels: np.ndarray | None, frames: float) -> Cause | None:
    """Shares of the longest utterance, or those cut to whole numbers. One utterance says nothing."""
    a_share = 0 < lengths.max() <= 1 and lengths.min() >= 0
    if not a_share or len(lengths) < 2 or (labels is not None and not (labels > lengths).any()):
        return None
    return Cause(
        "fraction",
        f"no input length is above 1, but log_probs has {frames:.0f} frames",
        "these are shares of the longest utterance, perhaps cut to whole numbers",
        f"pass frames: (relative_lengths * {frames:.0f}).round()",
    )


def repeated_subsampling(history: History, tolerance_frames: float, enough: Enough) -> Cause | None:
    """The longest is the same 1/k of the time axis in every call."""
    frames, longest = np.asarray(history, dtype=np.float64).T
    for factor in FACTORS:
        fits = np.abs(longest - frames / factor) <= tolerance_frames
        if fits.all() and enough.holds(frames, factor) and _follows(longest, frames):
            return Cause(
                "subsampled-twice",
                _seen(frames, longest, f"1/{factor} of the time axis (±{tolerance_frames:g} frames)"),
                f"the lengths were subsampled by {factor} once more than the frames",
                f"subsample the lengths once: here the longest should be {frames[-1]:.0f}, not {longest[-1]:.0f}",
                Severity.WARNING,
            )
    return None


def repeated_share(history: History, limit_fraction: float, enough: Enough) -> Cause | None:
    """The longest is the same small share of the time axis in every call."""
    frames, longest = np.asarray(history, dtype=np.float64).T
    share = longest.sum() / frames.sum() if frames.sum() > 0 else np.nan
    fits = np.abs(longest - share * frames) <= np.maximum(1.0, JITTER_FRACTION * share * frames)
    if not (0 < share <= limit_fraction and fits.all() and enough.holds(frames) and _follows(longest, frames)):
        return None
    return Cause(
        "seconds",
        _seen(frames, longest, f"{share:.2%} of the time axis"),
        f"one unit is about {1 / share:.0f} frames: seconds, or frames before another subsampling",
        f"pass frames of log_probs: here the longest should be {frames[-1]:.0f}, not {longest[-1]:g}",
        Severity.WARNING,
    )


def _follows(longest: np.ndarray, frames: np.ndarray) -> bool:
    """Whether the lengths grow with the frames: short ones in any padding are near a fixed share too, but do not."""
    together = (longest - longest.mean()) @ (frames - frames.mean())
    return bool(together >= CORRELATION * len(frames) * longest.std() * frames.std() > 0)


def _seen(frames: np.ndarray, longest: np.ndarray, share: str) -> str:
    widths = len(np.unique(frames))
    now = f"now {longest[-1]:g} of {frames[-1]:.0f} frames"
    return f"in {len(frames)} calls with {widths} widths the longest input length was always {share}; {now}"
