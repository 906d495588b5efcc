"""CMU-MOSI and CMU-MOSEI: people talk to a camera, and each sentence is rated from bad to good."""

from __future__ import annotations

import ast
import csv
import logging
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from emotion2vec.corpora.catalog import Corpus, missing_files, sounds_under
from emotion2vec.corpora.tables import films_first, number_turns, read_table
from emotion2vec.manifest import Record

_log = logging.getLogger(__name__)

_LAYOUT = (
    "label.csv and VIDEO/CLIP.mp4 or .wav, as MMSA gives it out (mp4 needs the extra media); or as "
    "its owners do: whole sounds in a folder Full such as Audio/Full/WAV_16000/VIDEO.wav, with "
    "OpinionLevelSentiment.csv or *Labels.csd (extra hdf5) and, for the official split, "
    "*_std_folds.py of the CMU Multimodal SDK"
)


class _Segment(NamedTuple):
    """A sentence of a video."""

    video: str
    name: str
    score: float
    """mean of what listeners gave it, -3 to 3"""
    place: float
    """by which the sentences of a video stand in order"""
    end: float | None = None
    """in seconds, where the sound is the whole video's; it begins at `place`, then"""
    split: str | None = None


def read_cmu(root: Path, *, title: str, video_is_speaker: bool) -> list[Record]:
    """The labelled sentences of CMU-MOSI or CMU-MOSEI; a video is a `dialogue` of one.

    Labels: `sentiment` ("negative" under 0, "positive" over it; 0 has none), `dialogue`, `turn`,
    and `split` where it is known; sentences in no part of the owners' split are then left out.

    Raises:
        FileNotFoundError: if there are no labels
        ValueError: if sounds are missing (they are counted), a table is broken, or the extra hdf5
            is needed
    """
    sounds = films_first(sounds_under(root))
    if table := _find(root, "label.csv"):
        clips = {(path.parent.name, path.stem): path for path in sounds}
        found = {segment: clips.get((segment.video, segment.name)) for segment in _mmsa(table)}
    else:
        videos = {path.stem: path for path in sounds if "Full" in path.relative_to(root).parts}
        segments = _in_folds(_owners_segments(root), root, title)
        found = {segment: videos.get(segment.video) for segment in segments}
    gone = [f"{segment.video}/{segment.name}" for segment, path in found.items() if path is None]
    if gone:
        raise missing_files(title, gone, len(found), root=root, layout=_LAYOUT)
    return number_turns(
        (segment.place, _record(segment, str(path), title.lower(), video_is_speaker))
        for segment, path in found.items()
    )


def _find(root: Path, pattern: str) -> Path | None:
    return next(iter(sorted(root.rglob(pattern))), None)


def _record(segment: _Segment, path: str, corpus: str, video_is_speaker: bool) -> Record:
    labels = {"dialogue": segment.video}
    if segment.score:
        labels["sentiment"] = "positive" if segment.score > 0 else "negative"
    if segment.split:
        labels["split"] = segment.split
    return Record(
        f"{corpus}-{segment.video}_{segment.name}",
        path,
        start=0.0 if segment.end is None else max(segment.place, 0.0),  # some begin before 0
        end=segment.end,
        speaker=f"{corpus}-{segment.video}" if video_is_speaker else None,
        language="en",
        labels=labels,
    )


def _mmsa(table: Path) -> Iterator[_Segment]:
    """Give the clips of the table that MMSA made, with its `mode`: train, valid or test."""
    for row in read_table(table, ("video_id", "clip_id", "label", "mode")):
        video, clip = row["video_id"], row["clip_id"]
        try:
            yield _Segment(video, clip, float(row["label"]), float(clip), split=row["mode"])
        except ValueError as error:
            raise ValueError(
                f"{table}: clip {clip!r} of {video} has the label {row['label']!r}; both must be "
                "numbers, give the table as it was."
            ) from error


def _owners_segments(root: Path) -> Iterator[_Segment]:
    """Give the segments of the owners' csv (MOSI only), or else of their file of HDF5."""
    if table := _find(root, "OpinionLevelSentiment.csv"):
        with table.open(encoding="utf-8-sig", newline="") as file:
            for start, end, video, name, score in csv.reader(file):
                yield _Segment(video, name, float(score), float(start), float(end))
        return
    sequences = _find(root, "*Labels.csd")
    if sequences is None:
        raise FileNotFoundError(f"{root} holds no labels; it must hold {_LAYOUT}.")
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            f"{sequences} needs pip install 'emotion2vec[hdf5]' to be read."
        ) from error
    with h5py.File(sequences) as file:
        (sequence,) = file.values()
        for video, parts in sequence["data"].items():
            spans, values = parts["intervals"][()].tolist(), parts["features"][()].tolist()
            for number, (span, features) in enumerate(zip(spans, values, strict=True)):
                # Of MOSEI's seven features the first is sentiment, the others are emotions.
                yield _Segment(video, str(number), features[0], *span)


def _in_folds(segments: Iterable[_Segment], root: Path, title: str) -> Iterator[_Segment]:
    """Give the segments with their part of the owners' split; all, without, if it is not there."""
    file = _find(root, "*_std_folds.py")
    if file is None:
        _log.warning("%s: no *_std_folds.py under %s, and so no official split", title, root)
        yield from segments
        return
    side_of = _read_folds(file)
    outside = 0
    for segment in segments:
        if segment.video in side_of:
            yield segment._replace(split=side_of[segment.video])
        else:
            outside += 1
    if outside:
        _log.info("%s: %s sentences are in no part of the split", title, f"{outside:,}")


def _read_folds(file: Path) -> dict[str, str]:
    """Return the part of each video; the file is Python of three lists, which is not run."""
    lists = {}
    try:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                lists[node.targets[0].id] = ast.literal_eval(node.value)
        return {
            video: side
            for side in ("train", "valid", "test")
            for video in lists[f"standard_{side}_fold"]
        }
    except (KeyError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{file} has no lists standard_train_fold, standard_valid_fold and standard_test_fold; "
            "take the file of the CMU Multimodal SDK."
        ) from error


_BINARY = (
    "Neutral sentences (0) are left out of the binary task, as in the paper; papers before 2019 "
    "count them as positive."
)

MOSI = Corpus(
    name="cmu-mosi",
    title="CMU-MOSI",
    language="en",
    classes=(),
    label_map={},
    speakers=89,
    licence="for research; the videos are from YouTube",
    source=(
        "Zadeh et al. 2016, IEEE Intelligent Systems (arXiv 1606.06259); "
        "github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK"
    ),
    traps=(
        "93 videos of 89 people: who is in which is not published, a video stands for a speaker.",
        _BINARY,
    ),
    protocols=("official", "speaker-folds"),
    read=partial(read_cmu, title="CMU-MOSI", video_is_speaker=True),
    layout=_LAYOUT,
)

MOSEI = Corpus(
    name="cmu-mosei",
    title="CMU-MOSEI",
    language="en",
    classes=(),
    label_map={},
    speakers=0,
    licence="for research; the videos are from YouTube",
    source="Zadeh et al. 2018, ACL; github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK",
    traps=(
        "More than 1,000 speakers, not told apart: whether the official split keeps them apart "
        "cannot be checked.",
        "The owners' times of many sentences miss what was said, some by minutes: issues 227, 278 "
        "and 359 of their SDK, 66 of MMSA.",
        "399 of 23,259 labelled sentences are in no part of the official split.",
        "Its six emotions are strengths, several at a time, and are not read.",
        _BINARY,
        "The published emotion2vec was pre-trained on these recordings, though without labels.",
    ),
    protocols=("official",),
    read=partial(read_cmu, title="CMU-MOSEI", video_is_speaker=False),
    layout=_LAYOUT,
)

SENTIMENT = (MOSI, MOSEI)
"""The corpora of this file."""
