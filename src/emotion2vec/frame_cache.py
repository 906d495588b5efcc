"""Frames of recordings, computed once for each sound and backbone and kept on the disk.

S samples, T frames, L layers, D width.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion2vec.audio import Waveform, check_clip
from emotion2vec.backbones import Backbone
from emotion2vec.batching import encode_records
from emotion2vec.caches import cache_folder
from emotion2vec.frame_store import FrameStore
from emotion2vec.manifest import Record

WAITING_BYTES = 2**24
"""Frames that are written at a time, 16 MB: what a kill loses is seconds of work."""

Transform = Callable[[Waveform, str], Waveform]
"""The sound (S,) and its name -> the sound to be encoded (S',), both at 16 kHz. The name is made of
what is in the file, so that draws keyed by it are those of the sound, wherever it lies."""


def cached_frames(
    records: Sequence[Record],
    backbone: Backbone,
    *,
    folder: str | Path | None = None,
    condition: str = "",
    transform: Transform | None = None,
    progress: bool = False,
) -> tuple[dict[str, NDArray[np.float32]], dict[str, str]]:
    """Frames by key, (T, D) or (T, L, D), and by key the errors of recordings without any.

    What was computed before for the same sound is read: the same bytes of a file between the same
    seconds, whatever its path and key, under the same weights, layer and condition. All arrays are
    read-only views of one file, so that a corpus need not fit the memory. A killed run goes on
    where it was; processes can share a folder. Nothing is ever removed: delete the folder for that.

    Args:
        records: what to read
        backbone: what makes the frames; each has a folder named by its fingerprint
        folder: where these folders are; EMOTION2VEC_CACHE/frames if None
        condition: names what `transform` does, with all its settings
        transform: changes the sound before it is encoded
        progress: show a bar

    Raises:
        ValueError: for a transform without a condition's name, or a condition without transform
        OSError: if the folder cannot be written

    >>> from emotion2vec.backbones import load_backbone
    >>> cached_frames([], load_backbone("logmel"))
    ({}, {})
    """
    if bool(condition) != bool(transform):
        raise ValueError(
            f"the condition is {condition!r}, the transform {transform}; give both or neither: "
            "frames are kept under the condition's name."
        )
    store = FrameStore(Path(folder or cache_folder() / "frames") / backbone.fingerprint)
    sounds, errors = _sounds(records, condition, transform)
    todo = list({s.content: s for s in sounds.values() if s.content not in store}.values())
    failed = _encode(todo, backbone, store, progress=progress)
    found = {key: sound.content for key, sound in sounds.items() if sound.content in store}
    views = store.read(set(found.values()))
    gone = f"its frames are gone from {store.folder}; run again."
    for key, sound in sounds.items():
        if key not in found:  # of equal files one was read: each error names its own
            read, error = failed.get(sound.content, ("", gone))
            errors[key] = error.replace(read, sound.record.path) if read else error
    return {key: views[content] for key, content in found.items()}, errors


class _Sound(NamedTuple):
    """What is encoded of a recording."""

    content: str
    """stands for sound and condition"""
    name: str
    """stands for the sound alone"""
    record: Record
    transform: Transform | None

    def num_samples(self) -> int:
        """As the recording has them; batches are made by it."""
        return self.record.num_samples()

    def load(self) -> Waveform:
        """The sound in its condition."""
        samples = self.record.load()
        if self.transform is not None:
            samples = self.transform(samples, self.name)
            check_clip(samples, f"{self.record.path}, changed,")
        return samples


def _sounds(
    records: Sequence[Record], condition: str, transform: Transform | None
) -> tuple[dict[str, _Sound], dict[str, str]]:
    """Return sounds by key, and the errors of those whose file cannot be read."""
    sounds, errors = {}, {}
    for record in records:
        try:
            status = os.stat(record.path)
            digest = _digest(os.path.abspath(record.path), status.st_size, status.st_mtime_ns)
        except OSError as error:
            reason = error.strerror
            errors[record.key] = f"{record.path} cannot be read ({reason}); check the path."
            continue
        name = f"{digest} {record.start} {record.end}"
        sounds[record.key] = _Sound(f"{name} {condition}".rstrip(), name, record, transform)
    return sounds, errors


@cache
def _digest(path: str, size: int, modified: int) -> str:
    """Return the sha256 of a file; read once in a process while its size and time stay."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _encode(
    todo: Sequence[_Sound], backbone: Backbone, store: FrameStore, *, progress: bool
) -> Mapping[str, tuple[str, str]]:
    """Put the frames of sounds into the store; return by content what was read and its error."""
    failed: dict[str, tuple[str, str]] = {}
    waiting: dict[str, NDArray[np.float32]] = {}
    title = f"extracting ({backbone.name})" if progress else ""
    try:
        for outcome in encode_records(todo, backbone.encode, progress=title):
            content = todo[outcome.position].content
            if outcome.error:
                failed[content] = todo[outcome.position].record.path, outcome.error
                continue
            waiting[content] = outcome.value.frames
            if sum(frames.nbytes for frames in waiting.values()) >= WAITING_BYTES:
                store.append(waiting)
                waiting = {}
    finally:  # also where the user stops it
        if waiting:
            store.append(waiting)
    return failed
