"""Segments: what is heard from when to when, and how far two lists of them agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Segment:
    """One emotion, from a start to an end."""

    start: float
    """in seconds"""
    end: float
    label: str
    """the most probable after smoothing; "unknown" where the recognizer abstains"""
    score: float
    """mean probability of the label over the segment, also where the recognizer abstains"""
    scores: Mapping[str, float] = field(default_factory=dict)
    """mean probability of each label in use; they sum to 1"""
    speaker: str | None = None
    """where speaker turns were given"""
    track: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    """(hops, C): the scores within the segment, one row a hop; what pictures are drawn from"""

    def to_dict(self) -> dict[str, Any]:
        """All fields but the track, as JSON takes them; times to a millisecond.

        >>> Segment(0.0, 1.25, "sad", 0.5, {"sad": 0.5, "happy": 0.5}).to_dict()["end"]
        1.25
        """
        return {
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "label": self.label,
            "score": self.score,
            "scores": dict(self.scores),
            "speaker": self.speaker,
        }


class Turn(NamedTuple):
    """Somebody speaks, from a start to an end."""

    start: float
    """in seconds"""
    end: float
    speaker: str | None = None


class DiarizationErrors(NamedTuple):
    """Seconds that a list of segments gets wrong, of so many."""

    missed: float
    """there is an emotion, none is answered"""
    false_alarm: float
    """an emotion is answered, there is none"""
    confusion: float
    """another emotion is answered"""
    duration: float
    """of the recording"""

    @property
    def rate(self) -> float:
        """The emotion diarization error rate, from 0; 1 where everything is wrong."""
        return (self.missed + self.false_alarm + self.confusion) / self.duration


def diarization_errors(
    reference: Sequence[tuple[float, float, str]],
    answer: Sequence[tuple[float, float, str]],
    duration: float,
    *,
    none: Sequence[str] = (),
) -> DiarizationErrors:
    """What `answer` gets wrong of `reference`; triples of start, end (seconds) and emotion.

    Args:
        reference: what is true; where nothing stands, there is no emotion
        answer: what was answered
        duration: of the recording, in seconds
        none: labels that count as no emotion; the source counts neutral speech so

    Raises:
        ValueError: if segments of one list overlap, or the duration is not above 0

    Source: Wang et al., "Speech Emotion Diarization" (arXiv 2306.12991), EDER: (false alarm +
    missed + confusion) / duration of the utterance. The numbers of the example are SpeechBrain's.

    >>> errors = diarization_errors([(0.39, 1.10, "angry")], [(0.6, 1.22, "angry")], 1.22)
    >>> round(errors.rate, 6)
    0.270492
    """
    if duration <= 0:
        raise ValueError(f"the duration is {duration} s; give the recording's, above 0.")
    true, found = (_without(list_, none) for list_ in (reference, answer))
    edges = sorted({edge for start, end, _ in (*true, *found) for edge in (start, end)})
    errors = {"missed": 0.0, "false_alarm": 0.0, "confusion": 0.0}
    for start, end in pairwise(edges):
        middle = (start + end) / 2
        emotion, answered = _at(true, middle), _at(found, middle)
        if emotion != answered:
            kind = (
                "false_alarm" if emotion is None else "missed" if answered is None else "confusion"
            )
            errors[kind] += end - start
    return DiarizationErrors(**errors, duration=duration)


def _without(
    segments: Sequence[tuple[float, float, str]], none: Sequence[str]
) -> list[tuple[float, float, str]]:
    kept = sorted(segment for segment in segments if segment[2] not in none)
    for (start, end, label), (following, _, other) in pairwise(kept):
        if following < end:
            raise ValueError(
                f"{label} from {start} to {end} s and {other} from {following} s overlap; give "
                "segments that follow each other."
            )
    return kept


def _at(segments: Sequence[tuple[float, float, str]], time: float) -> str | None:
    """Return the label at a time that is no edge; by bisection, as hours have thousands."""
    starts = [segment[0] for segment in segments]
    place = int(np.searchsorted(starts, time)) - 1
    return segments[place][2] if place >= 0 and time < segments[place][1] else None
