"""What the page tells of a recording, computed: `hear`; and the files that can be taken away.

S samples, N columns of a picture, C classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion2vec.audio import SAMPLE_RATE, Waveform, check_clip, read_blocks
from emotion2vec.recognize import Recognition, Recognizer
from emotion2vec.segment_files import SEGMENT_FILES
from emotion2vec.segments import diarization_errors
from emotion2vec.timeline import Timeline, draw_timeline, timeline_of

MAX_SECONDS = 1800.0
"""Longer recordings are for `emotion2vec timeline`, which needs no browser to stay open."""

COLUMNS = (900, 6000)
"""Of the waveform's picture: the pixels of a wide one, more for what is looked at closely."""

_COLUMNS_A_SECOND = 20

PICTURE = "png"

_IN_TIME = 0.4
"""The share of the work that is the timeline; with mini a half for a minute, less for more."""

Progress = Callable[[float, str], object]
"""Called with what is done, from 0 to 1, and what is being done."""


@dataclass(frozen=True)
class Finding:
    """What one model says of a recording."""

    model: str
    """its name on the page"""
    recognition: Recognition
    """of the recording as a whole"""
    abstains: bool = False
    """the whole has no label, as no score reaches the recognizer's bound"""
    abstain: float = 0.0
    """that bound"""
    timeline: Timeline | None = None
    """None from a model that answers values only"""


@dataclass(frozen=True)
class Heard:
    """What is told of a recording."""

    name: str
    """of the file"""
    duration: float
    """in seconds"""
    outline: NDArray[np.float32]
    """(N,): the largest absolute sample of each column of the picture"""
    findings: tuple[Finding, ...]
    """one a model"""


class Agreement(NamedTuple):
    """How far two timelines of a recording say the same."""

    same: float
    """seconds in which both have the same label"""
    either: float
    """seconds in which one of them has a label"""

    @property
    def share(self) -> float:
        """In [0, 1]; 0 where there is no label at all."""
        return self.same / self.either if self.either else 0.0


def read_recording(path: str | Path, *, max_seconds: float = MAX_SECONDS) -> Waveform:
    """The sound of a recording, (S,) at 16 kHz, if the page can answer for it.

    Raises:
        ValueError: if it is no sound, silent, too short or too long; the message names the file as
            the user does, not where it lies

    >>> len(read_recording("data/moods/clips/f1-sad-01.ogg")) / SAMPLE_RATE > 1
    True
    """
    path = Path(path)
    blocks: list[Waveform] = []
    held = 0
    try:
        for block in read_blocks(path):
            blocks.append(block)
            held += len(block)
            if held > max_seconds * SAMPLE_RATE:  # counted, not read from a header
                raise ValueError(
                    f"{path} is longer than {max_seconds / 60:g} min; give a shorter one here, or "
                    "the whole to emotion2vec timeline."
                )
        samples = np.concatenate([*blocks, np.empty(0, np.float32)])
        check_clip(samples, str(path))
    except (OSError, ValueError) as error:
        raise ValueError(str(error).replace(str(path), path.name)) from error
    return samples


def hear(
    name: str,
    samples: Waveform,
    recognizers: Mapping[str, Recognizer],
    *,
    progress: Progress | None = None,
) -> Heard:
    """What each of the models says of a recording, as a whole and in time.

    Args:
        name: of the recording's file
        samples: (S,) of `read_recording`
        recognizers: by the name that the page shows
        progress: told how far it is

    Raises:
        ModuleNotFoundError: without the extra `demo`, for speech detection

    >>> mini = Recognizer.from_pretrained()
    >>> sound = read_recording("data/moods/clips/f1-sad-01.ogg")
    >>> heard = hear("f1-sad-01.ogg", sound, {"mini": mini})
    >>> heard.findings[0].recognition.label in mini.labels
    True
    """
    tell: Progress = (lambda done, doing: None) if progress is None else progress
    findings = []
    for number, (model, recognizer) in enumerate(recognizers.items()):

        def of_model(done: float, doing: str, first: int = number, model: str = model) -> None:
            tell((first + done) / len(recognizers), f"{model} {doing}")

        findings.append(_find(model, recognizer, samples, Path(name).stem, of_model))
    return Heard(name, len(samples) / SAMPLE_RATE, outline_of(samples), tuple(findings))


def outline_of(samples: Waveform, columns: int | None = None) -> NDArray[np.float32]:
    """The largest absolute sample in each of so many equal stretches: (S,) -> (N,).

    Args:
        samples: (S,) at 16 kHz
        columns: N; what suits the duration, if None

    >>> outline_of(np.array([0.1, -0.5, 0.2, 0.25], np.float32), 2).tolist()
    [0.5, 0.25]
    """
    if columns is None:
        columns = int(np.clip(_COLUMNS_A_SECOND * len(samples) / SAMPLE_RATE, *COLUMNS))
    count = min(columns, len(samples))
    edges = np.linspace(0, len(samples), count, endpoint=False).astype(int)
    return np.maximum.reduceat(np.abs(samples), edges)


def agreement_of(one: Timeline, two: Timeline) -> Agreement:
    """Seconds in which two timelines of a recording say the same, of those in which either speaks.

    Upper and lower case are one.

    >>> from emotion2vec.segments import Segment
    >>> one = Timeline("a", 9, (Segment(0, 4, "sad", 0.9),), ("sad",), 0.5)
    >>> two = Timeline("a", 9, (Segment(1, 3, "Sad", 0.9), Segment(3, 6, "calm", 0.5)), (), 0.5)
    >>> agreement_of(one, two)
    Agreement(same=2.0, either=6.0)
    """
    first, second = (
        [(s.start, s.end, s.label.casefold()) for s in timeline.segments] for timeline in (one, two)
    )
    errors = diarization_errors(first, second, max(one.duration, two.duration))
    labelled = float(sum(end - start for start, end, _ in first))
    same = labelled - errors.missed - errors.confusion
    return Agreement(same, labelled + errors.false_alarm)


def write_files(heard: Heard, finding: Finding, folder: Path) -> list[Path]:
    """The files of a finding, written into a folder, named after the recording.

    Segments in every kind that `emotion2vec timeline` writes and their picture; of a model that
    answers values only, JSON.

    Raises:
        OSError: if the folder cannot be written
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Systems take 255 bytes for a name; of a model its end tells most.
    of_model = "" if finding is heard.findings[0] else f".{finding.model}"
    of_model = re.sub(r"[^\w.-]+", "_", of_model).encode()[-100:].decode(errors="ignore")
    name = Path(heard.name).stem.encode()[:100].decode(errors="ignore") + of_model
    if finding.timeline is None:
        file = folder / f"{name}.json"
        facts = finding.recognition.to_dict() | {"key": Path(heard.name).stem}
        file.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return [file]
    files = []
    for suffix, write in SEGMENT_FILES.items():
        files.append(folder / f"{name}.{suffix}")
        files[-1].write_text(write(finding.timeline), encoding="utf-8")
    files.append(folder / f"{name}.{PICTURE}")
    draw_timeline(finding.timeline).savefig(files[-1], dpi=130, format=PICTURE)
    return files


def write_sound(samples: Waveform, file: Path) -> Path:
    """The sound as 16-bit wav, which every browser plays and seeks in to the sample.

    Raises:
        OSError: if it cannot be written
    """
    import soundfile

    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.clip(samples, -1, 1), SAMPLE_RATE, subtype="PCM_16", format="WAV")
    return file


def _find(
    name: str, recognizer: Recognizer, samples: Waveform, key: str, tell: Progress
) -> Finding:
    timeline = None
    if recognizer.labels:
        timeline = timeline_of(_pieces(samples, tell), recognizer, key=key)
    tell(_IN_TIME, "hears the whole")
    found = recognizer((samples, SAMPLE_RATE))
    abstains = timeline is not None and found.score < recognizer.abstain
    return Finding(name, found, abstains, recognizer.abstain, timeline)


def _pieces(samples: Waveform, tell: Progress) -> Iterator[Waveform]:
    """The sound piece by piece, telling how much was taken."""
    size = 4 * SAMPLE_RATE
    for first in range(0, len(samples), size):
        tell(_IN_TIME * first / len(samples), "follows it in time")
        yield samples[first : first + size]


def shares(timeline: Timeline) -> Sequence[tuple[str, float]]:
    """Seconds of each label that a timeline has, the longest first.

    >>> from emotion2vec.segments import Segment
    >>> shares(Timeline("a", 9, (Segment(0, 4, "sad", 0.9),), ("sad",), 0.5))
    [('sad', 4)]
    """
    seconds: dict[str, float] = {}
    for s in timeline.segments:
        seconds[s.label] = seconds.get(s.label, 0) + s.end - s.start
    return sorted(seconds.items(), key=lambda item: -item[1])
