"""Where speech is, as the sound comes: Silero's voice activity detector, frame by frame."""

from __future__ import annotations

from typing import NamedTuple

from emotion2vec.audio import SAMPLE_RATE, Waveform

FRAME_SAMPLES = 512
"""32 ms: what the detector takes at a time at 16 kHz."""


class Edge(NamedTuple):
    """Speech begins or ends."""

    begins: bool
    sample: int


class SpeechDetector:
    """Beginnings and ends of speech, told as soon as they are known.

    Args:
        threshold: probability from which a frame counts as speech; speech goes on until frames
            fall 0.15 below it
        pause_seconds: a shorter silence does not end speech
        pad_seconds: what is kept before and after speech, where consonants are soft

    Raises:
        ModuleNotFoundError: without the extra `vad`

    Source: Silero VAD 6 (MIT), its weights are in its package.

    >>> import numpy as np
    >>> detector = SpeechDetector()
    >>> detector.push(np.zeros(FRAME_SAMPLES, np.float32)) is None
    True
    """

    def __init__(
        self, *, threshold: float = 0.5, pause_seconds: float = 0.3, pad_seconds: float = 0.1
    ) -> None:
        from silero_vad import VADIterator, load_silero_vad

        self._iterator = VADIterator(
            load_silero_vad(),
            threshold=threshold,
            sampling_rate=SAMPLE_RATE,
            min_silence_duration_ms=round(1000 * pause_seconds),
            speech_pad_ms=round(1000 * pad_seconds),
        )
        self.position = 0
        """samples heard"""
        # An end is told when the pause is over, and set back to where it began, by a frame more
        # than it is long and less what is kept of it.
        self.hindsight_samples = (
            round((pause_seconds - pad_seconds) * SAMPLE_RATE) + 2 * FRAME_SAMPLES
        )
        """so far behind `position` nothing changes any more"""

    def push(self, frame: Waveform) -> Edge | None:
        """What the next frame, (512,), tells; at most one edge."""
        import torch

        self.position += len(frame)
        told = self._iterator(torch.from_numpy(frame))
        if told is None:
            return None
        kind, sample = next(iter(told.items()))
        return Edge(kind == "start", min(int(sample), self.position))
