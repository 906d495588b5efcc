"""What happens to sound between a mouth and a file, but for codecs: noise, rooms, filters, losses.

Arrays in, arrays out; everything random comes with a generator. S samples at 16 kHz, R samples of
an impulse response. Full scale is 1, but nothing is cut off there: samples are floats.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion2vec.audio import MIN_SAMPLES, SAMPLE_RATE, Waveform
from emotion2vec.resampling import RESAMPLING

ACTIVE_DB = 30.0
"""A frame of 20 ms is speech if it is at most so much weaker than the loudest one."""

_FRAME = SAMPLE_RATE // 50

SPEECH_SPECTRUM = {
    **{160: 32.41, 200: 34.48, 250: 34.75, 315: 33.98, 400: 34.59, 500: 34.27, 630: 32.06},
    **{800: 28.30, 1000: 25.01, 1250: 23.00, 1600: 20.15, 2000: 17.32, 2500: 13.18},
    **{3150: 11.55, 4000: 9.33, 5000: 5.31, 6300: 2.59, 8000: 1.13},
}
"""Long-term level of speech, dB in 1 Hz, by Hz. Source: ANSI S3.5-1997, table 3, normal effort."""


def power(samples: NDArray[Any]) -> float:
    """Mean square, in float64."""
    return float(np.square(samples, dtype=np.float64).mean())


def active_speech(samples: Waveform) -> Waveform:
    """The frames of 20 ms that hold speech, see `ACTIVE_DB`: (S,) -> (frames, 320); S >= 320.

    Levels are taken from them, so that a clip with silence around it is treated as without it.

    >>> tone = np.sin(np.arange(16000, dtype=np.float32) / 5)
    >>> active_speech(np.pad(tone, 32000)).shape
    (50, 320)
    """
    frames = samples[: len(samples) // _FRAME * _FRAME].reshape(-1, _FRAME)
    strength = np.square(frames, dtype=np.float64).mean(axis=1)
    return frames[strength >= strength.max() * 10 ** (-ACTIVE_DB / 10)]


def add_noise(samples: Waveform, noise: NDArray[Any], snr_db: float) -> Waveform:
    """The clip with noise (S,), set so that its active speech is `snr_db` over the noise's power.

    Raises:
        ValueError: if the noise is silent or not finite

    >>> clip = np.ones(640, np.float32)
    >>> [round(float(s), 3) for s in add_noise(clip, np.tile([1.0, -1.0], 320), 20)[:2]]
    [1.1, 0.9]
    """
    strength = power(noise)
    if not 0 < strength < math.inf:
        raise ValueError(
            f"the noise has the power {strength}; it must be sound, leave silent or broken "
            "recordings out of the noise."
        )
    scale = math.sqrt(power(active_speech(samples)) / strength) * 10 ** (-snr_db / 20)
    return (samples + scale * noise).astype(np.float32)


def white_noise(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Noise with the same power in every Hz, (count,)."""
    return generator.standard_normal(count)


def pink_noise(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Noise with the same power in every octave from 20 Hz on, (count,)."""
    size = _fft_size(count)
    hertz = _frequencies(size)
    return _shaped(count, generator, np.where(hertz >= 20, 1 / hertz.clip(1), 0))


def speech_noise(count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Steady noise with the spectrum of speech, `SPEECH_SPECTRUM`, from 100 Hz on, (count,)."""
    size = _fft_size(count)
    hertz = _frequencies(size)
    bands = np.log(list(SPEECH_SPECTRUM))
    level = np.interp(np.log(hertz.clip(1)), bands, list(SPEECH_SPECTRUM.values()))
    return _shaped(count, generator, np.where(hertz >= 100, 10 ** (level / 10), 0))


def _shaped(
    count: int, generator: np.random.Generator, density: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return noise whose power in each Hz goes with `density` (size // 2 + 1,)."""
    spectrum = np.fft.rfft(generator.standard_normal(_fft_size(count))) * np.sqrt(density)
    return np.fft.irfft(spectrum)[:count]


def _fft_size(count: int) -> int:
    """Return the next power of two: other sizes can be slow."""
    return 1 << (count - 1).bit_length()


def _frequencies(size: int) -> NDArray[np.float64]:
    return np.linspace(0, SAMPLE_RATE / 2, size // 2 + 1)


def decaying_response(rt60_seconds: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """The impulse response of a made-up room, (R,): a direct path of 1, then decaying noise.

    The noise falls by 60 dB in `rt60_seconds` and ends there. Its energy is that of the direct path
    (a direct-to-reverberant ratio of 0 dB), so that rooms differ in nothing but their RT60.

    >>> response = decaying_response(0.5, np.random.default_rng(0))
    >>> len(response), float(response[0]), round(float(np.square(response).sum()), 6)
    (8001, 1.0, 2.0)
    """
    count = round(rt60_seconds * SAMPLE_RATE)
    tail = generator.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
    return np.concatenate([[1.0], tail / np.sqrt(np.square(tail).sum())])


def reverberate(samples: Waveform, response: NDArray[Any]) -> Waveform:
    """The clip in the room of an impulse response (R,): as long and with the same mean power.

    What comes after the clip's end is cut off.

    >>> reverberate(np.ones(4, np.float32), np.array([0.5])).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    size = _fft_size(len(samples) + len(response))
    product = np.fft.rfft(samples, size) * np.fft.rfft(response, size)
    wet = np.fft.irfft(product, size)[: len(samples)]
    strength = power(wet)
    scale = math.sqrt(power(samples) / strength) if strength > 0 else 0.0
    return (scale * wet).astype(np.float32)


def low_pass(samples: Waveform, hertz: float) -> Waveform:
    """The clip without what is above `hertz`, (S,), without delay.

    All passes up to 0.95 of it, half the amplitude at it, nothing from 1.05 of it on.
    """
    size = _fft_size(len(samples) + SAMPLE_RATE // 2)  # zeros, so that the end is not the beginning
    place = ((_frequencies(size) / hertz - 0.95) / 0.1).clip(0, 1)
    gain = 0.5 + 0.5 * np.cos(np.pi * place)
    return np.fft.irfft(np.fft.rfft(samples, size) * gain)[: len(samples)].astype(np.float32)


def change_speed(clip: Waveform, speed: float) -> Waveform:
    """The clip played faster or slower, pitch and all; as it is, if it got too short for a model.

    >>> len(change_speed(np.zeros(1100, np.float32), 1.1))
    1000
    """
    if speed == 1:
        return clip
    import soxr

    changed: Waveform = soxr.resample(clip, SAMPLE_RATE, SAMPLE_RATE / speed, quality="HQ")
    return changed if len(changed) >= MIN_SAMPLES else clip


def resample_through(samples: Waveform, sampling_rate: float) -> Waveform:
    """The clip brought to a lower sampling rate and back, (S,)."""
    import soxr

    narrow = soxr.resample(samples, SAMPLE_RATE, sampling_rate, quality=RESAMPLING)
    back = soxr.resample(narrow, sampling_rate, SAMPLE_RATE, quality=RESAMPLING)
    return fit_length(back, len(samples))


def fit_length(samples: Waveform, count: int) -> Waveform:
    """The first `count` samples, with zeros behind where they do not suffice: (count,) float32.

    >>> fit_length(np.ones(2, np.float32), 3).tolist()
    [1.0, 1.0, 0.0]
    """
    fitted = np.zeros(count, np.float32)
    fitted[: len(samples)] = samples[:count]
    return fitted


def clip_share(samples: Waveform, percent: float) -> Waveform:
    """The clip cut off at the amplitude that so many percent of its active speech reach, (S,).

    >>> speech = np.tile([0.1, -0.2, 0.3, -0.4], 80).astype(np.float32)
    >>> [round(float(sample), 1) for sample in clip_share(speech, 50)[:4]]
    [0.1, -0.2, 0.3, -0.3]
    """
    magnitude = np.sort(np.abs(active_speech(samples)), axis=None)
    count = round(len(magnitude) * percent / 100)
    return samples.clip(-magnitude[-count], magnitude[-count]) if count else samples.copy()


def shorten(samples: Waveform, seconds: float) -> Waveform:
    """The middle of the clip, so many seconds of it; all of a shorter clip.

    The middle, because many recordings begin and end with silence.

    >>> shorten(np.arange(40000, dtype=np.float32), 1.0)[0].item()
    12000.0
    """
    count = min(len(samples), round(seconds * SAMPLE_RATE))
    start = (len(samples) - count) // 2
    return samples[start : start + count].copy()


def change_gain(samples: Waveform, decibels: float) -> Waveform:
    """The clip louder or softer, (S,).

    >>> round(float(change_gain(np.ones(1, np.float32), -20)[0]), 3)
    0.1
    """
    return samples * np.float32(10 ** (decibels / 20))
