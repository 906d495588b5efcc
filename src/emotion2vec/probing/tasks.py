"""What is predicted from frozen features: tasks, what they are learned from, what they are told by.

N clips, T frames of a clip, D width, V values (dimensions) of a clip.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emotion2vec.manifest import Record
from emotion2vec.probing.folds import Folds

Frames = Mapping[str, NDArray[np.float32]]
"""(T, D) by key; (T, L, D) of all L layers"""

Answer = str | tuple[float, ...] | tuple[tuple[float, ...], ...]
"""What is said of a clip: a class, V values, or V values for each of its frames"""


@dataclass(frozen=True)
class Task:
    """One thing to predict of a recording."""

    name: str
    title: str
    kind: Literal["classes", "values", "frame values"]
    """a class of the clip; decimal numbers of the clip; decimal numbers of each frame"""
    labels: tuple[str, ...]
    """names in `Record.labels`; of several values, those that all recordings have are predicted"""
    head: str = "linear"
    """name in `emotion2vec.probing.heads.HEADS`, where nobody asks for another"""
    turns: int = 0
    """so many turns before the recording are what the head is given, instead of its frames"""

    @property
    def selection(self) -> str:
        """The score by which an epoch is chosen on the validation part."""
        return "wa" if self.kind == "classes" else "ccc"


DIMENSIONS = ("arousal", "valence", "dominance")

TASKS = {
    task.name: task
    for task in (
        Task("emotion", "emotion recognition", "classes", ("emotion",)),
        Task("sentiment", "sentiment, negative or positive", "classes", ("sentiment",)),
        # Paper, section 4.4: the emotion of a turn from the six before it, without the turn itself.
        Task(
            "conversation", "emotion prediction in conversation", "classes", ("emotion",), "gru", 6
        ),
        Task("dimensions", "arousal, valence, dominance", "values", DIMENSIONS),
        Task("frame-dimensions", "dimensions of each frame", "frame values", DIMENSIONS, "frames"),
    )
}


def usable(task: Task, records: Sequence[Record]) -> list[Record]:
    """The recordings that the task can be asked of: labelled and, of dialogues, with turns before.

    Raises:
        ValueError: if there is none

    >>> clips = [Record("a", "a.wav", labels={"emotion": "sad"}), Record("b", "b.wav")]
    >>> [record.key for record in usable(TASKS["emotion"], clips)]
    ['a']
    """
    names = ("traces",) if task.kind == "frame values" else task.labels
    found = [record for record in records if any(name in record.labels for name in names)]
    if task.turns:
        before = turns_before(records, task.turns)
        found = [record for record in found if before.get(record.key)]
    if not found:
        needs = " or ".join(repr(name) for name in names)
        turns = " and turns before it in its 'dialogue', counted by 'turn'" if task.turns else ""
        raise ValueError(
            f"none of {len(records)} recordings has a label {needs}{turns}, which the task "
            f"{task.name} needs; choose another task or corpus."
        )
    return found


def label_set(folds: Folds, task: Task = TASKS["emotion"]) -> list[str]:
    """The classes in the folds, sorted; or the dimensions that all recordings have.

    Raises:
        ValueError: if a recording lacks the label, all have the same one, or a fold tests a class
            that it does not train on
    """
    records = [r for fold in folds.folds for part in fold for r in part]
    if task.kind == "frame values":
        return [*task.labels]
    if task.kind == "values":
        names = [name for name in task.labels if all(name in r.labels for r in records)]
        if not names:
            raise ValueError(
                f"no one of {', '.join(task.labels)} is given for all of {len(records)} recordings;"
                " leave out those without labels."
            )
        return names
    (label,) = task.labels
    for number, fold in enumerate(folds.folds, start=1):
        bare = [r.key for part in fold for r in part if label not in r.labels]
        if bare:
            raise ValueError(
                f"{len(bare)} recordings have no label {label!r}, such as {bare[0]!r}; "
                "add it to the manifest or leave them out."
            )
        known = {r.labels[label] for r in fold.train}
        unknown = sorted({r.labels[label] for r in (*fold.valid, *fold.test)} - known)
        if unknown:
            raise ValueError(
                f"fold {number} tests the label {unknown[0]!r}, which its training part lacks "
                f"(it has {', '.join(sorted(known))}); mend the label or the folds."
            )
    classes = sorted({r.labels[label] for r in records})
    if len(classes) < 2:
        raise ValueError(
            f"every recording has the {label} {classes[0]!r}; two classes are needed, check the "
            "labels, or what the folders are named after."
        )
    return classes


def truth(task: Task, record: Record, names: Sequence[str], num_frames: int = 0) -> Answer:
    """What is true of a recording: its class, its values, or those of each of its frames.

    Args:
        task: what is asked
        record: the recording
        names: what `label_set` gave
        num_frames: T, of frame values

    Raises:
        ValueError: if a value is no number, or a file of traces cannot be used
    """
    if task.kind == "classes":
        return record.labels[task.labels[0]]
    if task.kind == "values":
        return tuple(_number(record, name) for name in names)
    return tuple(tuple(row) for row in trace(record, names, num_frames).tolist())


def _number(record: Record, name: str) -> float:
    try:
        value = float(record.labels[name])
        if np.isfinite(value):
            return value
    except ValueError:
        pass
    raise ValueError(
        f"{record.key}: {name} is {record.labels[name]!r}; it must be a number, mend the label."
    )


def trace(record: Record, names: Sequence[str], num_frames: int) -> NDArray[np.float64]:
    """Values in the middle of each frame, (T, V), from the csv under the label "traces".

    The csv has the columns `seconds`, counted from the beginning of the recording, and the
    dimensions; between its rows values are interpolated, outside them the nearest is taken.

    Raises:
        OSError: if the file cannot be read
        ValueError: if it lacks a column or has something else than numbers
    """
    times, values = _read_traces(record.labels["traces"], tuple(names))
    seconds = record.num_samples() / 16000
    middles = (np.arange(num_frames) + 0.5) / num_frames * seconds
    return np.column_stack([np.interp(middles, times, column) for column in values.T])


@lru_cache(maxsize=4096)
def _read_traces(
    path: str, names: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        times = np.array([float(row["seconds"]) for row in rows])
        values = np.array([[float(row[name]) for name in names] for row in rows])
        if not len(rows) or not np.isfinite(values).all() or (np.diff(times) <= 0).any():
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no traces; it must be a csv with the columns seconds (rising), "
            f"{', '.join(names)} and a number in each."
        ) from error
    return times, values


def turns_before(records: Sequence[Record], count: int) -> dict[str, list[Record]]:
    """The at most `count` turns before each recording in its dialogue, earliest first, by key.

    Recordings without "dialogue" and "turn" have none.

    >>> said = [Record(str(t), "a.wav", labels={"dialogue": "d", "turn": str(t)}) for t in range(4)]
    >>> [record.key for record in turns_before(said, 2)["3"]]
    ['1', '2']
    """
    dialogues: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if {"dialogue", "turn"} <= set(record.labels):
            dialogues[record.labels["dialogue"]].append(record)
    found = {}
    for turns in dialogues.values():
        turns.sort(key=lambda record: int(record.labels["turn"]))
        for i, record in enumerate(turns):
            found[record.key] = turns[max(0, i - count) : i]
    return found


def inputs(task: Task, records: Sequence[Record], frames: Frames) -> Frames:
    """What the head is given: the frames themselves, or the vectors of the turns before.

    Args:
        task: what is asked
        records: all of the corpus, also those that are only heard as turns before
        frames: of all `records` that could be read; a turn that could not is passed over
    """
    if not task.turns:
        return frames
    before = turns_before(records, task.turns)
    vectors = {key: values.mean(axis=0) for key, values in frames.items()}
    found = {}
    for key, turns in before.items():
        heard = [vectors[turn.key] for turn in turns if turn.key in vectors]
        if heard:
            found[key] = np.stack(heard)
    return found
