"""What is done to a clip before the model hears it in training; all that is random is keyed.

S samples at 16 kHz.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.degradations import (
    add_noise,
    change_speed,
    pink_noise,
    power,
    speech_noise,
    white_noise,
)
from emotion2vec.finetuning.config import FinetuneConfig

HIDDEN_SECONDS = 0.2
_SHORTEST = SAMPLE_RATE // 10
_NOISES = (white_noise, pink_noise, speech_noise)


def augment(clip: Waveform, config: FinetuneConfig, random: np.random.Generator) -> Waveform:
    """The clip at another speed, cropped, through a filter, in noise, in parts hidden: (S',).

    Args:
        clip: (S,), not normalized
        config: how much of each
        random: what is drawn from

    >>> clip = np.ones(SAMPLE_RATE, np.float32)
    >>> len(augment(clip, FinetuneConfig(speeds=(2.0,)), np.random.default_rng(0)))
    8000
    """
    speed = config.speeds[int(random.integers(len(config.speeds)))]
    clip = crop(change_speed(clip, speed), config.max_clip_seconds, random)
    if len(clip) < _SHORTEST:
        return clip
    if config.equalize_db or config.band_stop:
        clip = _filter(clip, config, random)
    if random.random() < config.noise_share and power(clip) > 0:
        make = _NOISES[int(random.integers(len(_NOISES)))]
        clip = add_noise(clip, make(len(clip), random), random.uniform(*config.noise_snr))
    return _hide(clip, config.hide_share, random) if config.hide_share else clip


def crop(clip: Waveform, seconds: float, random: np.random.Generator) -> Waveform:
    """A random part of a clip that is longer than so many seconds; else the clip.

    >>> len(crop(np.zeros(SAMPLE_RATE * 2, np.float32), 1.5, np.random.default_rng(0)))
    24000
    """
    count = round(seconds * SAMPLE_RATE)
    if len(clip) <= count:
        return clip
    first = int(random.integers(len(clip) - count + 1))
    return clip[first : first + count]


def _mel(hertz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where frequencies are on the mel scale, from 0 to 1 at 8 kHz."""
    top = np.log1p(SAMPLE_RATE / 2 / 700)
    scaled: NDArray[np.float64] = np.log1p(hertz / 700) / top
    return scaled


def _filter(clip: Waveform, config: FinetuneConfig, random: np.random.Generator) -> Waveform:
    """Return the clip through a random smooth response, without a random band."""
    size = 1 << (len(clip) - 1).bit_length()
    places = _mel(np.linspace(0, SAMPLE_RATE / 2, size // 2 + 1))
    knots = random.normal(0, config.equalize_db, size=7)
    gain = 10 ** (np.interp(places, np.linspace(0, 1, 7), knots) / 20)
    width = random.uniform(0, config.band_stop)
    first = random.uniform(0, 1 - width)
    gain[(places >= first) & (places < first + width)] = 0
    filtered = np.fft.irfft(np.fft.rfft(clip, size) * gain, size)[: len(clip)]
    return filtered.astype(np.float32) if power(filtered) > 0 else clip


def _hide(clip: Waveform, share: float, random: np.random.Generator) -> Waveform:
    """Return the clip with about a share of it silenced, in stretches."""
    length = int(HIDDEN_SECONDS * SAMPLE_RATE)
    hidden = clip.copy()
    expected = len(clip) * share / length
    count = int(expected) + int(random.random() < expected % 1)
    for first in random.integers(0, len(clip), size=count):
        hidden[first : first + length] = 0
    return hidden if power(hidden) > 0 else clip
