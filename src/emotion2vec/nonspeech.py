"""Sound that is no speech, made: noise, hum, tones, music, near silence. (S,) at 16 kHz."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion2vec.audio import SAMPLE_RATE, Waveform

Samples = NDArray[Any]
Generator = np.random.Generator


def coloured_noise(count: int, generator: Generator) -> Samples:
    """Noise whose power falls by 0 to 9 dB an octave, swelling and fading, (count,)."""
    spectrum = np.fft.rfft(generator.standard_normal(count))
    slope = generator.uniform(0, 1.5)
    spectrum *= np.arange(1, len(spectrum) + 1) ** -slope
    return np.fft.irfft(spectrum, count) * _swell(count, generator)


def hum(count: int, generator: Generator) -> Samples:
    """A steady harmonic sound, as of a machine or the mains, under some noise, (count,)."""
    times = _times(count)
    pitch = generator.uniform(40, 400)
    partials = np.arange(1, int(generator.integers(2, 20)))
    strength = generator.random(len(partials)) / partials
    phases = generator.uniform(0, 2 * np.pi, len(partials))
    waves = np.sin(2 * np.pi * pitch * np.outer(partials, times) + phases[:, None])
    sound = strength @ waves
    noise = generator.standard_normal(count) * sound.std() * 10 ** generator.uniform(-3, -0.5)
    return sound + noise


def tones(count: int, generator: Generator) -> Samples:
    """Beeps: sines of a few pitches, on and off, (count,)."""
    sound, place = np.zeros(count), 0
    while place < count:
        length = int(generator.uniform(0.05, 0.8) * SAMPLE_RATE)
        if generator.random() < 0.7:
            times = _times(length)
            wave = np.sin(2 * np.pi * generator.uniform(100, 4000) * times)
            part = sound[place : place + length]
            part += (wave * np.hanning(length) ** 0.2)[: len(part)]
        place += length
    return sound + 1e-3 * generator.standard_normal(count)


def music(count: int, generator: Generator) -> Samples:
    """Chords, a melody and beats in one key and tempo, (count,)."""
    beat = generator.uniform(0.25, 0.8)
    root = generator.uniform(55, 220)
    scale = np.array([0, 2, 3, 5, 7, 8, 10]) if generator.random() < 0.5 else np.array(
        [0, 2, 4, 5, 7, 9, 11]
    )  # fmt: skip
    sound = np.zeros(count)
    for number in range(int(count / SAMPLE_RATE / beat) + 1):
        first = int(number * beat * SAMPLE_RATE)
        chord = generator.integers(0, 7) + np.array([0, 2, 4]) if number % 4 == 0 else ()
        melody = generator.integers(7, 21, size=1) if generator.random() < 0.7 else ()
        notes = [*((degree, beat * 4) for degree in chord), *((degree, beat) for degree in melody)]
        for degree, length in notes:
            pitch = root * 2 ** ((scale[int(degree) % 7] + 12 * (int(degree) // 7)) / 12)
            _add(sound, first, _note(pitch, length, generator))
        if generator.random() < 0.6:
            decay = np.exp(-_times(SAMPLE_RATE // 8) * generator.uniform(20, 80))
            _add(sound, first, 0.5 * generator.standard_normal(len(decay)) * decay)
    return sound + 1e-3 * generator.standard_normal(count)


def near_silence(count: int, generator: Generator) -> Samples:
    """A recorder's own noise, now and then a click, (count,)."""
    sound = 1e-4 * generator.standard_normal(count)
    for place in generator.integers(0, count, size=int(generator.integers(0, 4))):
        click = generator.standard_normal(80) * np.exp(-np.arange(80) / 15)
        _add(sound, int(place), 1e-2 * generator.random() * click)
    return sound


NONSPEECH: dict[str, Callable[[int, Generator], Samples]] = {
    "noise": coloured_noise,
    "hum": hum,
    "tones": tones,
    "music": music,
    "silence": near_silence,
}
"""Kinds of sound that is no speech."""


def make_nonspeech(count: int, generator: Generator, kind: str | None = None) -> Waveform:
    """One sound, (count,) float32, peak at most 1, of a kind in `NONSPEECH`; of any, if None.

    >>> make_nonspeech(16000, np.random.default_rng(0), "music").shape
    (16000,)
    """
    kinds = sorted(NONSPEECH)
    kind = kind or kinds[int(generator.integers(len(kinds)))]
    sound = NONSPEECH[kind](count, generator)
    peak = np.abs(sound).max()
    return (sound / max(peak, 1.0)).astype(np.float32)


def _times(count: int) -> NDArray[np.float64]:
    return np.arange(count) / SAMPLE_RATE


def _swell(count: int, generator: Generator) -> NDArray[np.float64]:
    """Return a slow, random gain in (0, 1], (count,)."""
    points = generator.uniform(0.1, 1, size=max(2, count // SAMPLE_RATE + 2))
    return np.interp(np.linspace(0, len(points) - 1, count), np.arange(len(points)), points)


def _note(pitch: float, seconds: float, generator: Generator) -> NDArray[np.float64]:
    """Return a plucked or bowed note."""
    times = _times(int(seconds * SAMPLE_RATE))
    partials = np.arange(1.0, 9.0)
    strength: NDArray[np.float64] = partials ** -generator.uniform(0.8, 2.5)
    strength[partials * pitch >= SAMPLE_RATE / 2] = 0
    wave = strength @ np.sin(2 * np.pi * pitch * np.outer(partials, times))
    decay = np.exp(-times * generator.uniform(0.2, 6))
    note: NDArray[np.float64] = wave * decay * np.minimum(times / 0.01, 1)
    return note


def _add(sound: NDArray[np.float64], first: int, part: NDArray[np.float64]) -> None:
    """Add a part to a sound in place, from a sample on; what goes over the end is cut."""
    room = sound[first : first + len(part)]
    room += part[: len(room)]
