"""Real audio: the same for the same seed, as long as it should be, and not silent."""

from __future__ import annotations

from pathlib import Path

import espeakng_loader
import numpy as np
import pytest

from ctcguard.demo.speech import DIGITS, SAMPLING_RATE, VOICES, Speaker, SpeechError, Utterance, spoken_digits


@pytest.fixture(scope="module")
def utterances() -> list[Utterance]:
    return spoken_digits(40, seed=11)


def test_the_same_seed_gives_the_same_samples(utterances: list[Utterance]) -> None:
    spoken_digits(3, seed=5)  # what was said in between must not matter
    for before, after in zip(utterances, spoken_digits(40, seed=11), strict=True):
        assert (before.id, before.text) == (after.id, after.text)
        np.testing.assert_array_equal(before.waveform, after.waveform)


def test_another_seed_says_something_else(utterances: list[Utterance]) -> None:
    assert [u.text for u in utterances] != [u.text for u in spoken_digits(40, seed=12)]


def test_utterances_are_two_to_four_digits_in_all_voices(utterances: list[Utterance]) -> None:
    assert {len(u.text.split()) for u in utterances} == {2, 3, 4}
    assert {word for u in utterances for word in u.text.split()} == set(DIGITS)
    assert {u.id.split("-", 2)[2] for u in utterances} == set(VOICES)
    assert len({u.id for u in utterances}) == len(utterances)


def test_each_is_as_long_as_speech_and_not_silent(utterances: list[Utterance]) -> None:
    for utterance in utterances:
        digits = len(utterance.text.split())
        assert 0.15 * digits < utterance.duration_s < 0.7 * digits
        assert utterance.waveform.dtype == np.float32
        assert 0.1 < np.abs(utterance.waveform).max() <= 1
        assert np.sqrt(np.mean(utterance.waveform**2)) > 0.02


def test_what_is_excluded_is_not_said(utterances: list[Utterance]) -> None:
    texts = {u.text for u in utterances}
    assert not texts & {u.text for u in spoken_digits(40, seed=11, exclude=texts)}


def test_slow_speech_is_longer_and_high_speech_has_a_shorter_period() -> None:
    speaker = Speaker(seed=0)
    slow = speaker.say("nine", words_per_minute=100)
    fast = speaker.say("nine", words_per_minute=200)
    assert len(slow) > 1.4 * len(fast)
    low, high = (period_s(speaker.say("nine", pitch=pitch)) for pitch in (10, 90))
    assert low > 1.3 * high


def period_s(waveform: np.ndarray) -> float:
    """Pitch period of the loudest 50 ms, by autocorrelation between 50 and 400 Hz."""
    size = SAMPLING_RATE // 20
    start = max(range(0, len(waveform) - size, size // 4), key=lambda i: float(np.sum(waveform[i : i + size] ** 2)))
    piece = waveform[start : start + size]
    correlation = np.correlate(piece, piece, mode="full")[size - 1 :]
    shortest, longest = SAMPLING_RATE // 400, SAMPLING_RATE // 50
    return (shortest + int(np.argmax(correlation[shortest:longest]))) / SAMPLING_RATE


def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(SpeechError, match="'martian'"):
        Speaker(seed=0).say("one", voice="martian")


def test_a_long_path_to_the_voices_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Speaker(seed=0).say("one")
    far = tmp_path / ("a" * 80) / ("b" * 80) / "espeak-ng-data"
    far.parent.mkdir(parents=True)
    far.symlink_to(espeakng_loader.get_data_path(), target_is_directory=True)
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(far))
    np.testing.assert_array_equal(Speaker(seed=0).say("one"), expected)


def test_missing_voices_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(SpeechError, match="must start at 22050 Hz"):
        Speaker(seed=0)
