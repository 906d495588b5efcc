"""The emotions of a long recording in time: `timeline_of`, in bounded memory.

C classes, N points of the outline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion2vec.audio import SAMPLE_RATE, Waveform, num_samples, read_blocks
from emotion2vec.recognize import Recognizer
from emotion2vec.segments import Segment, Turn
from emotion2vec.stream import Stream, StreamSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTLINE_SECONDS = 0.05
"""What a point of a recording's outline stands for."""


@dataclass(frozen=True)
class Timeline:
    """What was found in a recording, from its start to its end."""

    key: str
    duration: float
    """in seconds"""
    segments: tuple[Segment, ...]
    """by start; what lies between them is no speech"""
    labels: tuple[str, ...]
    """C, those in use, in the order of the segments' tracks"""
    hop_seconds: float
    """between the rows of the segments' tracks"""
    policy: str = ""
    """how scores became labels"""
    outline: NDArray[np.float32] = field(
        default_factory=lambda: np.empty(0, np.float32), repr=False, compare=False
    )
    """(N,): the largest absolute sample in every 0.05 s"""

    def to_dict(self) -> dict[str, Any]:
        """Everything but outline and tracks, as JSON takes it."""
        return {
            "key": self.key,
            "duration": round(self.duration, 3),
            "labels": list(self.labels),
            "policy": self.policy,
            "segments": [segment.to_dict() for segment in self.segments],
        }


def timeline_of(
    source: str | Path | bytes | IO[bytes] | Iterable[Waveform],
    recognizer: Recognizer,
    settings: StreamSettings | None = None,
    *,
    turns: Sequence[Turn] | None = None,
    key: str | None = None,
    progress: bool = False,
) -> Timeline:
    """Segments of one emotion each, found in a recording of any length.

    Two hours take the memory of some minutes: the recording is read block by block through a
    `Stream`, with whose segments these agree.

    Args:
        source: path, encoded bytes, open binary file; or blocks of sound, mono at 16 kHz
        recognizer: with labels
        settings: how sound becomes segments
        turns: who speaks when, from another tool; instead of detecting speech
        key: name of the recording; the path, if None
        progress: show a bar

    Raises:
        FileNotFoundError: if there is no such file
        ModuleNotFoundError: if speech is to be detected without the extra `vad`
        ValueError: if it is no audio, or the recognizer answers no labels

    >>> timeline = timeline_of("data/moods/clips/f1-sad-01.ogg", Recognizer.from_pretrained())
    >>> round(timeline.duration, 1), timeline.segments[0].label in timeline.labels
    (1.7, True)
    """
    settings = settings or StreamSettings()
    batch = max(1, int(recognizer.batch_seconds / settings.window_seconds))
    stream = Stream(recognizer, settings, turns=turns, batch=batch)
    is_file = isinstance(source, str | Path | bytes) or hasattr(source, "read")
    blocks: Iterable[Waveform] = read_blocks(source) if is_file else source  # type: ignore[arg-type, assignment]
    segments: list[Segment] = []
    outline = _Outline()
    title = key or (str(source) if isinstance(source, str | Path) else "sound")
    total = num_samples(source) if isinstance(source, str | Path) and progress else None
    with tqdm(
        desc=title,
        total=total,
        unit=" s",
        disable=not progress,
        delay=1,
        unit_scale=1 / SAMPLE_RATE,
    ) as b:
        for block in blocks:
            for first in range(0, len(block), 4 * SAMPLE_RATE):  # the bar moves within a block, too
                piece = block[first : first + 4 * SAMPLE_RATE]
                segments += stream.push(piece)
                outline.push(piece)
                b.update(len(piece))
        segments += stream.finish()
    return Timeline(
        title,
        outline.samples / SAMPLE_RATE,
        tuple(sorted(segments, key=lambda segment: (segment.start, segment.end))),
        recognizer.labels,
        settings.hop_seconds,
        recognizer.policy,
        outline.points(),
    )


class _Outline:
    """The largest absolute sample in every stretch of a recording that comes in pieces."""

    def __init__(self) -> None:
        self.samples = 0
        self._size = round(OUTLINE_SECONDS * SAMPLE_RATE)
        self._rest: Waveform = np.empty(0, np.float32)
        self._found: list[NDArray[np.float32]] = []

    def push(self, piece: Waveform) -> None:
        self.samples += len(piece)
        sound = np.concatenate([self._rest, piece])
        whole = len(sound) // self._size * self._size
        self._found.append(np.abs(sound[:whole]).reshape(-1, self._size).max(axis=1, initial=0.0))
        self._rest = sound[whole:]

    def points(self) -> NDArray[np.float32]:
        rest = [np.abs(self._rest).max(keepdims=True)] if len(self._rest) else []
        return np.concatenate(list(chain(self._found, rest)) or [self._rest])


def draw_timeline(timeline: Timeline) -> Figure:
    """The picture of a timeline: waveform, bands of scores, confidence; a matplotlib figure.

    Raises:
        ModuleNotFoundError: without matplotlib, as in the extra `vad`
    """
    from emotion2vec.plots import timeline_figure

    hop = timeline.hop_seconds
    tracks = []
    for s in timeline.segments:
        assert s.track is not None
        edges = np.append(s.start + hop * np.arange(len(s.track)), s.end)
        tracks.append((edges, s.track))
    times = (np.arange(len(timeline.outline)) + 0.5) * OUTLINE_SECONDS
    return timeline_figure(
        (times, timeline.outline),
        [(s.start, s.end, s.label, s.score) for s in timeline.segments],
        tracks,
        timeline.labels,
        duration=timeline.duration,
        title=timeline.key,
    )
