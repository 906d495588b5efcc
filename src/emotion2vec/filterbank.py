"""Triangular filters on the mel scale, and what turns windows of sound into their energies."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LOWEST_HERTZ = 20.0


@lru_cache
def mel_filters(bands: int, fft: int, sampling_rate: int) -> NDArray[np.float64]:
    """Triangles, equally wide on the mel scale from 20 Hz to half the sampling rate: (bands, bins).

    >>> filters = mel_filters(64, 512, 16_000)
    >>> filters.shape, float(filters.max()) <= 1
    ((64, 257), True)
    """
    low, high = (2595 * np.log10(1 + f / 700) for f in (LOWEST_HERTZ, sampling_rate / 2))
    edges = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    bins = np.arange(fft // 2 + 1) * sampling_rate / fft
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(rising, falling))


@lru_cache
def fourier_matrix(window: int, fft: int) -> NDArray[np.float64]:
    """The DFT of Hann-weighted windows as a matrix: (window, 2 * bins), cosines, then sines.

    A product with it is what an FFT of the weighted and zero-padded window gives, in operations
    that every runtime has.

    >>> tone = np.cos(2 * np.pi * 8 * np.arange(64) / 64)
    >>> cosines, sines = np.split(tone @ fourier_matrix(64, 64), 2)
    >>> int((cosines**2 + sines**2).argmax())
    8
    """
    angles = 2 * np.pi / fft * np.outer(np.arange(window), np.arange(fft // 2 + 1))
    weights = np.hanning(window)[:, None]
    return np.concatenate([weights * np.cos(angles), weights * np.sin(angles)], axis=1)
