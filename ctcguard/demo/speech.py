"""Spoken digits: real audio from eSpeak NG, by ctypes, with no download."""

from __future__ import annotations

import ctypes
import shutil
import tempfile
import weakref
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import espeakng_loader
import numpy as np
import numpy.typing as npt

Waveform = npt.NDArray[np.float32]

SAMPLING_RATE: Final = 22_050
DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES: Final = ("en-us", "en-us+f3", "en+m3", "en+f2", "en-gb-scotland", "en-gb-x-rp+f4")
WORDS_PER_MINUTE: Final = (140, 190)
PITCH: Final = (35, 65)
LONGEST_PATH: Final = 140

_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH = 1, 3
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One spoken sequence of digits.

    Attributes
    ----------
    id : str
        Seed, number and voice, for instance ``"7-0042-en-us"``.
    text : str
        What is said: digit words with single spaces.
    waveform : float32 array, (samples,)
        Mono, in [-1, 1], at 22,050 Hz.
    """

    id: str
    text: str
    waveform: Waveform

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.waveform) / SAMPLING_RATE


class SpeechError(RuntimeError):
    """eSpeak NG refused something; the message says what."""


class Speaker:
    """eSpeak NG in a state of its own: the same calls in the same order give the same samples.

    Parameters
    ----------
    seed : int
        For the noise in fricatives and breathy voices.

    Notes
    -----
    eSpeak keeps phase and flutter in static variables that no call resets, so what was said before changes the
    samples. A private copy of the library (0.7 MB, about a millisecond) starts from a known state.
    """

    def __init__(self, seed: int) -> None:
        self._chunks: list[npt.NDArray[np.int16]] = []
        self._callback = _Callback(self._receive)
        home = tempfile.mkdtemp(prefix="espeak-")
        weakref.finalize(self, shutil.rmtree, home, ignore_errors=True)
        self._lib = ctypes.CDLL(shutil.copy(espeakng_loader.get_library_path(), home))
        data = _short_path(Path(espeakng_loader.get_data_path()), Path(home))
        rate = self._lib.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), _DONT_EXIT)
        if rate != SAMPLING_RATE:
            raise SpeechError(
                f"eSpeak NG must start at {SAMPLING_RATE} Hz, and answered {rate}, with its data in {data}"
            )
        self._lib.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self._lib.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, _events: int) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, *, voice: str = "en-us", words_per_minute: int = 160, pitch: int = 50) -> Waveform:
        """Speak a text.

        Parameters
        ----------
        text : str
            In English.
        voice : str
            An eSpeak voice, with a variant after ``+``.
        words_per_minute : int
            Speed, 80 to 450.
        pitch : int
            0 (low) to 100 (high).

        Returns
        -------
        float32 array, (samples,)
            In [-1, 1], at 22,050 Hz.

        Raises
        ------
        SpeechError
            If the voice is unknown or nothing was spoken.
        """
        self._chunks.clear()
        encoded = text.encode() + b"\0"
        statuses = (
            self._lib.espeak_SetVoiceByName(voice.encode()),
            self._lib.espeak_SetParameter(_RATE, words_per_minute, 0),
            self._lib.espeak_SetParameter(_PITCH, pitch, 0),
            self._lib.espeak_Synth(encoded, ctypes.c_size_t(len(encoded)), 0, 0, 0, _UTF8, None, None),
        )
        if any(statuses) or not self._chunks:
            raise SpeechError(f"eSpeak NG could not say {text!r} with the voice {voice!r} (status {statuses})")
        waveform: Waveform = np.concatenate(self._chunks).astype(np.float32) / np.float32(32768)
        return waveform


def spoken_digits(count: int, *, seed: int, exclude: Collection[str] = ()) -> list[Utterance]:
    """Utterances of two to four spoken digits, in several voices, speeds and pitches.

    Parameters
    ----------
    count : int
        How many.
    seed : int
        The same seed gives the same utterances, sample for sample.
    exclude : collection of str
        Texts that must not be said, for instance those of the training set.

    Returns
    -------
    list of Utterance
        Each 0.5 to 2.5 seconds long.
    """
    rng = np.random.default_rng(seed)
    speaker = Speaker(seed)
    utterances: list[Utterance] = []
    while len(utterances) < count:
        text = " ".join(rng.choice(DIGITS, size=rng.integers(2, 5)))
        if text in exclude:
            continue
        voice = str(rng.choice(VOICES))
        speed, pitch = int(rng.integers(*WORDS_PER_MINUTE)), int(rng.integers(*PITCH))
        waveform = speaker.say(text, voice=voice, words_per_minute=speed, pitch=pitch)
        utterances.append(Utterance(f"{seed}-{len(utterances):04d}-{voice}", text, waveform))
    return utterances


def _short_path(data: Path, home: Path) -> Path:
    """Reach a long path through a link in ``home``, for eSpeak has room for 160 characters only."""
    if len(str(data)) <= LONGEST_PATH:
        return data
    link = home / data.name
    link.symlink_to(data, target_is_directory=True)
    return link
