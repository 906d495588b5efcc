"""Frames that nobody trained: log-mel, MFCC, spectrogram, eGeMAPS, and what should not matter.

S samples, T frames, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.filterbank import mel_filters

Frames = NDArray[np.float32]
"""(T, D)"""

MEL_BANDS = 64
CEPSTRA = 40
SPECTROGRAM_BINS = 200
EGEMAPS = 88
_WINDOW, _HOP, _FFT = 400, 160, 512  # samples: 25 ms, 10 ms


def log_mel(samples: Waveform) -> Frames:
    """Natural log of the energy in 64 mel bands, (T, 64): 25 ms windows every 10 ms.

    The clip's peak is set to 1 first, so that recording level does not matter.

    >>> log_mel(np.sin(np.arange(16000, dtype=np.float32))).shape
    (98, 64)
    """
    windows = _windows(samples, _WINDOW)
    power = np.abs(np.fft.rfft(windows * np.hanning(_WINDOW), _FFT)) ** 2  # (T, bins)
    return np.log(power @ mel_filters(MEL_BANDS, _FFT, SAMPLE_RATE).T + 1e-6).astype(np.float32)


def mfcc(samples: Waveform) -> Frames:
    """40 mel-frequency cepstral coefficients, (T, 40): the orthonormal DCT-II of `log_mel`.

    >>> mfcc(np.sin(np.arange(16000, dtype=np.float32))).shape
    (98, 40)
    """
    return log_mel(samples) @ _cosines()


def spectrogram(samples: Waveform) -> Frames:
    """Natural log of the power from 0 to 4 kHz, (T, 200): 40 ms Hamming windows every 10 ms.

    A DFT of 800 points, so that bins are 20 Hz wide, and the lowest 200 of them. The clip's peak is
    set to 1 first; a clip under 40 ms is filled up with zeros.

    Source: Zhang et al. 2018, "Attention based fully convolutional network for speech emotion
    recognition" (arXiv 1806.01506), whose input this is.

    >>> spectrogram(np.sin(np.arange(16000, dtype=np.float32))).shape
    (97, 200)
    """
    length, bins = SAMPLE_RATE * 40 // 1000, 800
    windows = _windows(np.pad(samples, (0, max(0, length - len(samples)))), length)
    spectrum = np.fft.rfft(windows * np.hamming(length), bins)[:, :SPECTROGRAM_BINS]
    return np.log(np.abs(spectrum) ** 2 + 1e-6).astype(np.float32)


def trivial(samples: Waveform) -> Frames:
    """What should tell no emotion, (1, 5): seconds, dB, peak, DC offset, share of samples not 0.

    Of the sound as it is in the file, its level unchanged; dB are of the RMS, 0 for an RMS of 1 and
    at least -100. What these alone can tell shows how a corpus was recorded and cut, and is the
    floor for anything that is said to hear emotion.

    >>> [round(float(x), 2) for x in trivial(np.array([0.5, -0.5, 0, 0] * 4000, np.float32))[0]]
    [1.0, -9.03, 0.5, 0.0, 0.5]
    """
    exact = samples.astype(np.float64)
    duration = len(exact) / SAMPLE_RATE
    level = 10 * np.log10(max(float(np.mean(exact**2)), 1e-10))
    row = [duration, level, np.abs(exact).max(), exact.mean(), np.mean(exact != 0)]
    return np.array([row], np.float32)


def open_egemaps() -> Callable[[Waveform], Frames]:
    """A function from clips (S,) to the 88 functionals of eGeMAPSv02, (1, 88), by openSMILE.

    Of the sound as it is in the file, as openSMILE is used everywhere: loudness is among them.

    Raises:
        ModuleNotFoundError: without the extra `opensmile`

    Source: Eyben et al. 2016, "The Geneva minimalistic acoustic parameter set".
    """
    try:
        import opensmile
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "egemaps needs openSMILE: pip install 'emotion2vec[opensmile]'.", name=error.name
        ) from error
    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )

    def egemaps(samples: Waveform) -> Frames:
        if len(samples) < _SHORTEST_EGEMAPS:
            raise RuntimeError(
                f"the clip is {len(samples) / SAMPLE_RATE:.3f} s long; eGeMAPS needs 0.060 s"
            )
        return smile.process_signal(samples, SAMPLE_RATE).to_numpy(np.float32)

    return egemaps


_SHORTEST_EGEMAPS = SAMPLE_RATE * 60 // 1000  # its pitch is of 60 ms


class HandMade(NamedTuple):
    """One kind of frames that nobody trained."""

    fingerprint: str
    """to be raised when the numbers change: frames in caches are then made anew"""
    dim: int
    """D"""
    open: Callable[[], Callable[[Waveform], Frames]]
    """the function from a clip (S,) at 16 kHz, not normalized, to its frames (T, D)"""
    head: str = "logistic"
    """what stands on them where nothing else is asked for"""


HAND_MADE = {
    "logmel": HandMade("logmel-1", MEL_BANDS, lambda: log_mel),
    "mfcc": HandMade("mfcc-1", CEPSTRA, lambda: mfcc),
    "spectrogram": HandMade("spectrogram-1", SPECTROGRAM_BINS, lambda: spectrogram),
    "afcn": HandMade("spectrogram-1", SPECTROGRAM_BINS, lambda: spectrogram, "afcn"),
    "egemaps": HandMade("egemaps-1", EGEMAPS, open_egemaps),
    "trivial": HandMade("trivial-2", 5, lambda: trivial),
}


def _windows(samples: Waveform, length: int) -> NDArray[np.float32]:
    """Return windows of a clip, a hop apart, its peak at 1: (T, length)."""
    samples = samples / max(float(np.abs(samples).max()), 1e-9)
    return np.lib.stride_tricks.sliding_window_view(samples, length)[::_HOP]


@lru_cache
def _cosines() -> NDArray[np.float32]:
    """Return the orthonormal DCT-II as a matrix: (bands, coefficients)."""
    bands = (np.arange(MEL_BANDS) + 0.5)[:, None]
    matrix = np.sqrt(2 / MEL_BANDS) * np.cos(np.pi / MEL_BANDS * bands * np.arange(CEPSTRA))
    matrix[:, 0] /= np.sqrt(2)
    return matrix.astype(np.float32)
