"""Emotions as the sound comes: `Stream`, chunks of any size in, settled segments out.

Overlapping windows over speech are scored, a hop's scores are the mean of the windows over it, a
label is chosen by `smoothing`, equal labels that follow each other are one segment. Everything
depends on where samples are, nothing on how they came, so any chunking gives the same segments.

S samples, C classes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion2vec.audio import MIN_SAMPLES, SAMPLE_RATE, Resampler, Waveform
from emotion2vec.recognize import UNKNOWN
from emotion2vec.segments import Segment, Turn
from emotion2vec.smoothing import FixedLagSmoother
from emotion2vec.speech import FRAME_SAMPLES, SpeechDetector

if TYPE_CHECKING:
    from emotion2vec.recognize import Recognizer

SHORTEST_SECONDS = 0.25
"""Speech shorter than this, a cough or a click, is left out."""


@dataclass(frozen=True)
class StreamSettings:
    """How sound becomes segments.

    Raises:
        ValueError: if a number is out of its range
    """

    window_seconds: float = 2.0
    """What the model hears at a time; benchmarks/timeline.py compares lengths."""
    hop_seconds: float = 0.5
    """From window to window; edges of segments within speech lie on this grid."""
    switch: float = 0.05
    """Probability that the emotion changes within a hop; less is smoother."""
    lag_seconds: float = 1.0
    """How far to look ahead before a label is decided."""
    pause_seconds: float = 0.3
    """A shorter silence does not end speech."""
    threshold: float = 0.5
    """Probability from which sound counts as speech."""
    detect_speech: bool = True
    """Only speech is labelled; else everything is."""

    def __post_init__(self) -> None:
        ranges = (
            ("window_seconds", MIN_SAMPLES / SAMPLE_RATE, 60.0),
            ("hop_seconds", 0.01, 60.0),
            ("switch", 1e-9, 0.5),
            ("lag_seconds", 0.0, 60.0),
            ("pause_seconds", 0.1, 60.0),
            ("threshold", 0.15, 1.0),
        )
        for name, low, high in ranges:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; give a number from {low:g} to {high:g}.")
        if self.hop_seconds > self.window_seconds:
            raise ValueError(
                f"hop_seconds is {self.hop_seconds:g}, more than the window of "
                f"{self.window_seconds:g} s; what lies between would not be heard."
            )


class _Window(NamedTuple):
    """A window that is to be scored."""

    region: _Region
    start: int
    clip: Waveform


@dataclass
class _Region:
    """A stretch of speech: its windows, and what is known of its hops."""

    start: int
    end: int | None
    """None until it is known"""
    speaker: str | None
    smoother: FixedLagSmoother
    released: int = 0
    """windows whose sound is complete"""
    complete: bool = False
    """all windows are released"""
    sums: list[NDArray[np.float64]] = field(default_factory=list)
    """of each hop, (C + 1,): weighted scores, and their weights"""
    scored: int = 0
    """windows"""
    smoothed: int = 0
    """hops given to the smoother"""
    waiting: list[NDArray[np.float32]] = field(default_factory=list)
    """scores of hops that are smoothed but not decided"""
    run: list[NDArray[np.float32]] = field(default_factory=list)
    """scores of the hops of the segment that goes on"""
    run_label: int = -1
    run_start: int = 0
    """in hops"""


class Stream:
    """Chunks of sound of any size in, segments out as soon as they are settled.

    A segment is settled when its label changed and `lag_seconds` passed, or speech paused. The same
    sound gives the same segments however it is cut into chunks.

    Args:
        recognizer: with labels
        settings: how sound becomes segments
        turns: who speaks when, instead of detecting speech; each turn is labelled on its own
        sampling_rate: of the chunks, in Hz
        batch: windows scored together; 1 answers at once and to the last bit the same for any
            chunking

    Raises:
        ModuleNotFoundError: if speech is to be detected without the extra `vad`
        ValueError: if the recognizer answers no labels

    >>> from emotion2vec import Recognizer
    >>> from emotion2vec.audio import load_audio
    >>> stream = Stream(Recognizer.from_pretrained())
    >>> sound = load_audio("data/moods/clips/f1-sad-01.ogg")
    >>> found = [s for i in range(0, len(sound), 1000) for s in stream.push(sound[i : i + 1000])]
    >>> found += stream.finish()
    >>> found[0].start < 0.5 and found[-1].end <= len(sound) / 16000
    True
    """

    def __init__(
        self,
        recognizer: Recognizer,
        settings: StreamSettings | None = None,
        *,
        turns: Sequence[Turn] | None = None,
        sampling_rate: int = SAMPLE_RATE,
        batch: int = 1,
    ) -> None:
        if not recognizer.labels:
            raise ValueError(
                "the model answers values without labels, which make no segments; take a model "
                "with labels."
            )
        self.settings = settings or StreamSettings()
        self.labels = recognizer.labels
        self.abstain = recognizer.abstain
        self.position = 0
        """samples at 16 kHz that were looked at"""
        self._score: Callable[[list[Waveform]], NDArray[np.float32]] = recognizer.scores
        self._batch = batch
        self._resampler = Resampler(sampling_rate)
        self._window = round(self.settings.window_seconds * SAMPLE_RATE)
        self._hop = round(self.settings.hop_seconds * SAMPLE_RATE)
        self._sound: Waveform = np.empty(0, np.float32)
        self._offset = 0  # of the first sample in self._sound
        self._regions: list[_Region] = []
        self._turns: deque[_Region] = deque()  # those that have not begun, the next one first
        self._queue: list[_Window] = []
        self._latest: NDArray[np.float32] | None = None
        self._finished = False
        self._detector: SpeechDetector | None = None
        if turns is not None:
            self._turns.extend(self._region(*turn) for turn in _in_samples(turns))
        elif self.settings.detect_speech:
            self._detector = SpeechDetector(
                threshold=self.settings.threshold, pause_seconds=self.settings.pause_seconds
            )
        else:
            self._regions = [self._region(0, None, None)]

    @property
    def speaking(self) -> bool:
        """Whether there is speech now, as far as is known."""
        return any(region.end is None for region in self._regions)

    @property
    def latest(self) -> dict[str, float]:
        """Scores of the newest window, not smoothed, before its segment is settled; or nothing."""
        if self._latest is None:
            return {}
        return dict(zip(self.labels, map(float, self._latest), strict=True))

    def push(self, chunk: NDArray[Any]) -> list[Segment]:
        """Segments that the next chunk settles, in the order of their ends.

        Args:
            chunk: (samples,) or (samples, channels), floats within [-1, 1] or signed integers

        Raises:
            ValueError: if it has another shape or kind, samples that are not finite, or comes after
                `finish`
        """
        if self._finished:
            raise ValueError("the stream has been finished; begin a new one.")
        return self._take(self._checked(self._resampler.push(chunk)))

    def finish(self) -> list[Segment]:
        """Segments that the end settles; nothing can be pushed afterwards."""
        if self._finished:
            return []
        found = self._take(self._checked(self._resampler.finish()))
        self._finished = True
        end = self._offset + len(self._sound)
        # The detector takes whole frames: what is left of one counts as the last of them was.
        self.position = end
        for region in self._regions:
            region.end = end if region.end is None else min(region.end, end)
        found += self._advance(end)
        self._score_queue(1)
        return found + self._settle_all()

    def _checked(self, sound: Waveform) -> Waveform:
        if not np.isfinite(sound).all():
            seconds = (self._offset + len(self._sound)) / SAMPLE_RATE
            raise ValueError(
                f"the sound has samples that are NaN or infinite after {seconds:.1f} s; write the "
                "recording again from its source."
            )
        return sound

    def _take(self, sound: Waveform) -> list[Segment]:
        self._sound = np.concatenate([self._sound, sound])
        found = []
        while self._offset + len(self._sound) - self.position >= FRAME_SAMPLES:
            first = self.position - self._offset
            frame = self._sound[first : first + FRAME_SAMPLES]
            self.position += FRAME_SAMPLES
            found += self._advance(self._detect(frame))
        needed = (self._needed_from(r) for r in self._regions if not r.complete)
        keep = min([self.position - SAMPLE_RATE, *needed])
        if keep - self._offset > len(self._sound) // 2:  # rarely: it is a copy
            self._sound = self._sound[keep - self._offset :].copy()
            self._offset = keep
        return found

    def _detect(self, frame: Waveform) -> int:
        """Begin or end regions; return the sample before which nothing changes any more."""
        if self._detector is None:
            return self.position
        edge = self._detector.push(np.ascontiguousarray(frame))
        if edge is not None and edge.begins:
            self._regions.append(self._region(edge.sample, None, None))
        elif edge is not None:
            self._regions[-1].end = edge.sample
        return self.position - self._detector.hindsight_samples

    def _region(self, start: int, end: int | None, speaker: str | None) -> _Region:
        lag = round(self.settings.lag_seconds / self.settings.hop_seconds)
        return _Region(start, end, speaker, FixedLagSmoother(switch=self.settings.switch, lag=lag))

    def _needed_from(self, region: _Region) -> int:
        # A window that ends with the region can begin before the next one in line.
        return region.start + max(region.released - 1, 0) * self._hop

    def _advance(self, certain: int) -> list[Segment]:
        """Begin turns, release the windows that are complete, settle what can be."""
        while self._turns and self._turns[0].start < self.position:
            self._regions.append(self._turns.popleft())
        for region in self._regions:
            self._release(region, certain)
        return self._settle_all()

    def _score_queue(self, least: int) -> None:
        """Score windows as long as there are so many."""
        while len(self._queue) >= least:
            windows = self._queue[: self._batch]
            scores = self._score([window.clip for window in windows])
            del self._queue[: self._batch]  # only now: whoever interrupts may go on
            for window, row in zip(windows, scores, strict=True):
                self._add(window, row)

    def _settle_all(self) -> list[Segment]:
        found = [segment for region in self._regions for segment in self._settle(region)]
        self._regions = [r for r in self._regions if not (r.complete and r.scored == r.released)]
        return found

    def _release(self, region: _Region, certain: int) -> None:
        """Put the windows of a region whose sound is complete into the queue."""
        if region.complete:
            return
        end = region.end if region.end is not None and region.end <= self.position else None
        last = min(certain, self.position) if end is None else end
        while region.start + region.released * self._hop + self._window <= last:
            self._put(region, region.start + region.released * self._hop, self._window)
        if end is None:
            return
        region.complete = True
        length = end - region.start
        covered = (region.released - 1) * self._hop + self._window if region.released else 0
        if length >= SHORTEST_SECONDS * SAMPLE_RATE and covered < length:
            size = min(self._window, length)
            self._put(region, end - size, size)

    def _put(self, region: _Region, start: int, size: int) -> None:
        first = start - self._offset
        self._queue.append(_Window(region, start, self._sound[first : first + size].copy()))
        region.released += 1
        self._score_queue(self._batch)  # at once: many turns may overlap

    def _add(self, window: _Window, scores: NDArray[np.float32]) -> None:
        """Add a window's scores to the hops whose middle it covers, most to those in its middle."""
        region, size = window.region, len(window.clip)
        begin = window.start - region.start
        first = math.ceil(begin / self._hop - 0.5)
        last = max(math.ceil((begin + size) / self._hop - 0.5), first + 1)
        for hop in range(first, last):
            while len(region.sums) <= hop:
                region.sums.append(np.zeros(len(self.labels) + 1))
            distance = abs((hop + 0.5) * self._hop - begin - size / 2) / (size / 2)
            weight = max(1 - distance, 0.05)
            region.sums[hop] += weight * np.append(scores, 1.0)
        region.scored += 1
        self._latest = scores

    def _settle(self, region: _Region) -> list[Segment]:
        """Smooth the hops that no window will change any more; return segments that are over."""
        done = region.complete and region.scored == region.released
        # The window that begins with a hop is the last one over it, but for one at a region's end.
        ready = len(region.sums) if done else max(region.scored - 1, 0)
        found: list[Segment] = []
        while region.smoothed < ready:
            *scores, weight = region.sums[region.smoothed]
            row = np.asarray(np.array(scores) / weight, np.float32)
            region.smoothed += 1
            region.waiting.append(row)
            decided = region.smoother.push(row)
            if decided is not None:
                found += self._decide(region, decided)
        if done:
            for decided in region.smoother.finish():
                found += self._decide(region, decided)
            found += self._close(region)
        return found

    def _decide(self, region: _Region, label: int) -> list[Segment]:
        closed = self._close(region) if label != region.run_label else []
        region.run_label = label
        region.run.append(region.waiting.pop(0))
        return closed

    def _close(self, region: _Region) -> list[Segment]:
        """Return the segment that goes on, if there is one, and end it."""
        if not region.run:
            return []
        track = np.stack(region.run)
        start = region.start + region.run_start * self._hop
        region.run_start += len(region.run)
        last = region.complete and region.run_start >= len(region.sums)
        end = region.end if last else region.start + region.run_start * self._hop
        assert end is not None
        region.run = []
        scores = track.mean(axis=0, dtype=np.float64)
        score = float(scores[region.run_label])
        label = self.labels[region.run_label] if score >= self.abstain else UNKNOWN
        return [
            Segment(
                start / SAMPLE_RATE,
                end / SAMPLE_RATE,
                label,
                score,
                dict(zip(self.labels, map(float, scores), strict=True)),
                region.speaker,
                track,
            )
        ]


def _in_samples(turns: Sequence[Turn]) -> list[tuple[int, int, str | None]]:
    return [
        (round(start * SAMPLE_RATE), round(end * SAMPLE_RATE), speaker)
        for start, end, speaker in sorted(turns, key=lambda turn: turn[:2])
    ]
