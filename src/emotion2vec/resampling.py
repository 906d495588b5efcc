"""Samples of any rate, kind and number of channels -> mono float32 at 16 kHz, whole or in pieces.

S samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000
"""In Hz: what every published model was trained on."""

RESAMPLING = "VHQ"
"""soxr's best: flat within 0.02 dB to 7.4 kHz, images below -155 dB; docs/audio.md says why."""

Waveform = NDArray[np.float32]
_NOTHING: Waveform = np.empty(0, np.float32)


class Resampler:
    """Chunks of sound at any rate, (samples,) or (samples, channels), as mono at 16 kHz.

    Together they are what the whole would be, however it is cut.

    Args:
        sampling_rate: of the chunks, in Hz

    Raises:
        ValueError: if the rate is no number above 0

    >>> resampler = Resampler(8000)
    >>> pieces = [resampler.push(np.ones(100)), resampler.push(np.ones(60)), resampler.finish()]
    >>> sum(map(len, pieces))
    320
    """

    def __init__(self, sampling_rate: int) -> None:
        import soxr

        self._rate = sampling_rate
        from_array(_NOTHING, sampling_rate)
        self._stream: Any = None
        if sampling_rate != SAMPLE_RATE:
            self._stream = soxr.ResampleStream(
                sampling_rate, SAMPLE_RATE, 1, dtype="float32", quality=RESAMPLING
            )

    def push(self, chunk: NDArray[Any]) -> Waveform:
        """What the next chunk adds, (S,); chunks may be as in `load_audio`.

        Raises:
            ValueError: for an array of another shape or kind
        """
        return self.push_mono(average(from_array(chunk, self._rate)[0]))

    def push_mono(self, chunk: Waveform) -> Waveform:
        """What the next chunk of one channel, float32, adds: (S,) -> (S',)."""
        return chunk if self._stream is None else self._stream.resample_chunk(chunk)

    def finish(self) -> Waveform:
        """What is left at the end, (S,)."""
        if self._stream is None:
            return _NOTHING.copy()
        return self._stream.resample_chunk(_NOTHING, last=True)


def gather(blocks: Iterable[NDArray[np.float32]], rate: int) -> Waveform:
    """Average channels and resample, block by block; the result is that of one piece."""
    import soxr

    blocks = iter(blocks)
    first, second = next(blocks, _NOTHING), next(blocks, None)
    if second is None:
        mono = average(first)
        if rate == SAMPLE_RATE or not len(mono):
            return mono
        return soxr.resample(mono, rate, SAMPLE_RATE, quality=RESAMPLING)
    whole, filled = _NOTHING.copy(), 0
    for piece in resampled(chain([first, second], blocks), rate):
        whole.resize(filled + len(piece), refcheck=False)  # in place: no second copy
        whole[filled:] = piece
        filled += len(piece)
    return whole


def resampled(blocks: Iterable[NDArray[np.float32]], rate: int) -> Iterator[Waveform]:
    """Blocks (samples,) or (samples, channels) at a rate as blocks (S,) at 16 kHz."""
    resampler = Resampler(rate)
    for block in blocks:
        yield resampler.push_mono(average(block))
    yield resampler.finish()


def from_array(source: NDArray[Any], rate: int | None) -> tuple[NDArray[Any], int]:
    """Return float samples and their rate."""
    if rate is None or rate <= 0:
        raise ValueError(
            f"the array given comes with sampling_rate={rate}; pass its rate in Hz, "
            f"such as sampling_rate={SAMPLE_RATE}."
        )
    if source.ndim not in (1, 2) or (source.ndim == 2 and source.shape[1] > 32):
        raise ValueError(
            f"the array given has shape {source.shape}; "
            "give (samples,) or (samples, channels), transpose it if channels come first."
        )
    if source.dtype == np.uint8:
        return (source.astype(np.float32) - 128.0) / 128.0, rate
    if np.issubdtype(source.dtype, np.signedinteger):
        return source.astype(np.float32) / -float(np.iinfo(source.dtype).min), rate
    if not np.issubdtype(source.dtype, np.floating):
        raise ValueError(
            f"the array given holds {source.dtype}; give floats within [-1, 1], signed integers "
            "or uint8."
        )
    return source.astype(np.float32), rate


def average(block: NDArray[np.float32]) -> Waveform:
    """(S,) or (S, channels) -> (S,); a product is 20 times as fast as mean()."""
    if block.ndim == 1:
        return np.ascontiguousarray(block)
    if block.shape[1] > 2:  # a product of more adds in an order that depends on the block's length
        return np.asarray(sum(block.T) / np.float32(block.shape[1]), np.float32)
    return block @ np.full(block.shape[1], 1 / block.shape[1], np.float32)
