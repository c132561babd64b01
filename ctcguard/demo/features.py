"""Log-mel features in numpy, for a recogniser without a feature extractor of its own."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ctcguard.demo.speech import SAMPLING_RATE, Waveform

Features = npt.NDArray[np.float32]

BANDS: Final = 40
LOWEST_HZ, HIGHEST_HZ = 50.0, 8_000.0

# 20 ms from one frame to the next; a window is a power of two for the FFT: 46 ms.
_HOP, _WINDOW = 441, 1024


def mel(hertz: npt.ArrayLike) -> npt.NDArray[Any]:
    """The mel scale: equal steps sound equally high.

    Parameters
    ----------
    hertz : array_like
        At least 0.

    Returns
    -------
    float64 array
        0 for 0 Hz, about 1000 for 1000 Hz; of the same shape.
    """
    return np.asarray(2595 * np.log10(1 + np.asarray(hertz) / 700))


def log_mel(waveform: Waveform) -> Features:
    """Energies of 40 bands from 50 to 8,000 Hz, each band with mean 0 and deviation 1 over the utterance.

    Parameters
    ----------
    waveform : float32 array, (samples,)
        At 22,050 Hz.

    Returns
    -------
    float32 array, (1 + samples // 441, 40)
        A frame every 20 ms. All 0 for silence.
    """
    padded = np.pad(waveform, _WINDOW // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP] * np.hanning(_WINDOW)
    energies = np.log(np.abs(np.fft.rfft(windows)) ** 2 @ _triangles() + 1e-6)
    features: Features = ((energies - energies.mean(0)) / (energies.std(0) + 1e-3)).astype(np.float32)
    return features


def _triangles() -> npt.NDArray[Any]:
    """The weight of each FFT bin in each band, (513, 40): triangles that overlap by half, of equal width in mel."""
    edges = np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), BANDS + 2)
    bins = mel(np.fft.rfftfreq(_WINDOW, 1 / SAMPLING_RATE))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.asarray(np.maximum(0, np.minimum(rising, falling)))
