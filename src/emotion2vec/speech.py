"""Where speech is, as the sound comes: Silero's voice activity detector, frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from emotion2vec.audio import SAMPLE_RATE, Waveform

FRAME_SAMPLES = 512
"""32 ms: what the detector takes at a time at 16 kHz."""


class Edge(NamedTuple):
    """Speech begins or ends."""

    begins: bool
    sample: int


RELEASE = 0.15
"""So far below the threshold a silence begins; what lies between goes on as it was."""


class SpeechDetector:
    """Beginnings and ends of speech, told as soon as they are known.

    Args:
        threshold: probability from which a frame is speech; a silence begins `RELEASE` below it
        pause_seconds: a shorter silence does not end speech
        pad_seconds: what is kept before and after speech, where consonants are soft

    Raises:
        ModuleNotFoundError: without the extra `vad`

    Source: the probabilities are those of Silero VAD 6 (MIT), whose weights are in its package. Its
    own iterator can set an end back by any time; here it is a pause at most.

    >>> import numpy as np
    >>> detector = SpeechDetector()
    >>> detector.push(np.zeros(FRAME_SAMPLES, np.float32)) is None
    True
    """

    def __init__(
        self, *, threshold: float = 0.5, pause_seconds: float = 0.3, pad_seconds: float = 0.1
    ) -> None:
        self._probability = _load_model()
        self._threshold = threshold
        self._pause = round(pause_seconds * SAMPLE_RATE)
        self._pad = round(pad_seconds * SAMPLE_RATE)
        self._speaking = False
        self._silent_from: int | None = None
        self._last_end = 0
        self.position = 0
        """samples heard"""
        # An end is told once the pause is over, and set back to where it began, less the pad.
        self.hindsight_samples = max(self._pause - self._pad, 0) + FRAME_SAMPLES
        """so far behind `position` no end is ever set"""

    def push(self, frame: Waveform) -> Edge | None:
        """What the next frame, (512,), tells; at most one edge."""
        start = self.position
        self.position += len(frame)
        probability = self._probability(frame)
        if probability >= self._threshold:
            self._silent_from = None
            if not self._speaking:
                self._speaking = True
                return Edge(True, max(start - self._pad, self._last_end))
        elif self._speaking:
            if self._silent_from is None and probability < self._threshold - RELEASE:
                self._silent_from = start
            if self._silent_from is not None and self.position - self._silent_from >= self._pause:
                self._speaking = False
                self._last_end = min(self._silent_from + self._pad, self.position)
                self._silent_from = None
                return Edge(False, self._last_end)
        return None


def _load_model() -> Callable[[Waveform], float]:
    """Return a detector of its own: the probability that a frame, after those before, is speech."""
    import torch

    threads = torch.get_num_threads()
    try:
        import silero_vad
    finally:
        torch.set_num_threads(threads)  # the import sets it to one, for the whole process
    model = silero_vad.load_silero_vad()

    def probability(frame: Waveform) -> float:
        with torch.no_grad():
            return float(model(torch.from_numpy(frame), SAMPLE_RATE).item())

    return probability
