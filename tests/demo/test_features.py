"""Log-mel features: bands in their places, frames in time."""

from __future__ import annotations

import numpy as np
import pytest

from ctcguard.demo.features import BANDS, HIGHEST_HZ, LOWEST_HZ, log_mel, mel
from ctcguard.demo.speech import SAMPLING_RATE, spoken_digits


def test_the_mel_scale_meets_its_fixed_points() -> None:
    assert mel(0) == 0
    assert mel(1000) == pytest.approx(1000, abs=0.1)
    assert (np.diff(mel(np.arange(0, 8000, 100))) > 0).all()


def test_a_rising_tone_reaches_each_band_at_its_own_frequency() -> None:
    seconds, start, end = 4, 20.0, 9_000.0
    time = np.arange(seconds * SAMPLING_RATE) / SAMPLING_RATE
    phase = 2 * np.pi * (start * time + (end - start) * time**2 / (2 * seconds))
    features = log_mel(np.sin(phase).astype(np.float32))
    loudest = start + (end - start) * features.argmax(0) * 0.02 / seconds
    top = 2595 * np.log10(1 + np.asarray([LOWEST_HZ, HIGHEST_HZ]) / 700)
    centres = 700 * (10 ** (np.linspace(*top, BANDS + 2)[1:-1] / 2595) - 1)
    np.testing.assert_allclose(loudest, centres, atol=100)


@pytest.mark.parametrize("samples", [1, 440, 441, 442, 22_050])
def test_a_frame_every_20_ms(samples: int) -> None:
    features = log_mel(np.random.default_rng(0).standard_normal(samples).astype(np.float32))
    assert features.shape == (1 + samples // 441, BANDS)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_silence_has_no_features() -> None:
    assert not log_mel(np.zeros(4_410, np.float32)).any()


def test_speech_has_mean_0_and_deviation_1_however_loud() -> None:
    [utterance] = spoken_digits(1, seed=31)
    features = log_mel(utterance.waveform)
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(features.std(0), 1, atol=0.01)
    np.testing.assert_allclose(log_mel(utterance.waveform / 2), features, atol=0.05)
