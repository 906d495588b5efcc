"""What a corpus holds, counted: recordings, hours, speakers, labels; what speakers give away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.manifest import Record
from emotion2vec.media import MEDIA_SUFFIXES

MOST_VALUES = 24
"""Labels with more values than that are numbers or names: they are counted, not listed."""


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Counts of a corpus.

    Returns:
        recordings, hours (None where opening the files would take long), speakers (None without
        any), languages, constant and by_speaker (see `speaker_tells`; None without speakers or
        emotions), and labels: a list of rows label, value, recordings, speakers

    >>> clip = Record("a", "a.wav", duration=2.0, speaker="x", labels={"emotion": "sad"})
    >>> summary([clip])["labels"]
    [{'label': 'emotion', 'value': 'sad', 'recordings': 1, 'speakers': 1}]
    """
    names = dict.fromkeys(name for record in records for name in record.labels)
    told = [r for r in records if r.emotion is not None and r.speaker is not None]
    constant, by_speaker = speaker_tells(told) if told else (None, None)
    return {
        "recordings": len(records),
        "hours": _hours(records),
        "speakers": _speakers(records),
        "languages": sorted({record.language for record in records if record.language}),
        "constant": constant,
        "by_speaker": by_speaker,
        "labels": [row for name in names for row in _rows(records, name)],
    }


def speaker_tells(records: Sequence[Record]) -> tuple[float, float]:
    """Accuracy of always the commonest emotion, and of each speaker's commonest, in [0, 1].

    The second is what a system that recognises voices only can reach where speakers are shared
    between training and test. All records need an emotion and a speaker.

    >>> words = [("anna", "sad"), ("anna", "sad"), ("bob", "happy"), ("bob", "happy")]
    >>> speaker_tells([Record("", "", speaker=who, labels={"emotion": how}) for who, how in words])
    (0.5, 1.0)
    """
    emotions = Counter(record.emotion for record in records)
    by_speaker: dict[str | None, Counter[str | None]] = {}
    for record in records:
        by_speaker.setdefault(record.speaker, Counter())[record.emotion] += 1
    right = sum(max(counts.values()) for counts in by_speaker.values())
    return max(emotions.values()) / len(records), right / len(records)


def _speakers(records: Sequence[Record]) -> int | None:
    return len({record.speaker for record in records} - {None}) or None


def _rows(records: Sequence[Record], name: str) -> list[dict[str, Any]]:
    having = [record for record in records if name in record.labels]
    values = sorted({r.labels[name] for r in having}, key=lambda v: (len(v) * v.isdigit(), v))
    if len(values) > MOST_VALUES:
        return [_row(name, f"{len(values):,} values", having)]
    return [_row(name, v, [r for r in having if r.labels[name] == v]) for v in values]


def _row(name: str, value: str, records: Sequence[Record]) -> dict[str, Any]:
    return {
        "label": name,
        "value": value,
        "recordings": len(records),
        "speakers": _speakers(records),
    }


def _hours(records: Sequence[Record]) -> float | None:
    """Return the sum of the lengths, from lists or headers; None if there are films to open."""
    unknown = [record for record in records if record.duration is None and record.end is None]
    if any(Path(record.path).suffix.lower() in MEDIA_SUFFIXES for record in unknown):
        return None
    seconds = sum(record.num_samples() / SAMPLE_RATE for record in unknown)
    for record in records:
        if record.duration is not None:
            seconds += record.duration
        elif record.end is not None:
            seconds += record.end - record.start
    return seconds / 3600
