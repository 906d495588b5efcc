"""Features of recordings: in memory, or one file each in a folder.

T frames, D width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion2vec.atomic import atomic_path
from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.backbones import Backbone
from emotion2vec.jsonl import read_jsonl, write_jsonl
from emotion2vec.manifest import Record

LEVELS = ("frame", "utterance")
INDEX_NAME = "index.jsonl"
SETTINGS_NAME = "settings.json"


class Features(NamedTuple):
    """What came out of one recording: values, or the reason why there are none."""

    key: str
    values: NDArray[np.float32] | None
    """(T, D) at frame level, (D,) at utterance level"""
    num_frames: int = 0
    error: str = ""


def extract(
    records: Sequence[Record],
    backbone: Backbone,
    *,
    level: str = "frame",
    batch_seconds: float = 60.0,
    progress: bool = False,
) -> Iterator[Features]:
    """Features of each recording, in an order that batches like lengths.

    A recording that cannot be read comes with an `error`; the others go on. A batch holds at most
    `batch_seconds` of audio, padding counted, or one clip; answers do not depend on it.

    Args:
        records: what to read
        backbone: what makes the features
        level: "frame" (T, D), or "utterance" (D,), the mean over frames
        batch_seconds: bounds the memory
        progress: show a bar

    Raises:
        ValueError: for an unknown level
    """
    _check_level(level)
    readable: list[tuple[int, Record]] = []
    with tqdm(
        total=len(records), desc=f"extracting ({backbone.name})", disable=not progress
    ) as bar:
        for record in records:
            try:
                readable.append((record.num_samples(), record))
            except (OSError, ValueError) as error:
                bar.update()
                yield Features(record.key, None, error=str(error))
        for batch in _batches(readable, int(batch_seconds * SAMPLE_RATE)):
            for features in _encode(batch, backbone, level):
                bar.update()
                yield features


def _batches(readable: list[tuple[int, Record]], budget: int) -> Iterator[list[Record]]:
    """Cut recordings, shortest first, into batches whose padded size stays within the budget."""
    batch: list[Record] = []
    for length, record in sorted(readable, key=lambda item: item[0]):
        if batch and length * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


def _encode(batch: Sequence[Record], backbone: Backbone, level: str) -> Iterator[Features]:
    clips, keys = [], []
    for record in batch:
        try:
            clips.append(record.load())
            keys.append(record.key)
        except (OSError, ValueError) as error:
            yield Features(record.key, None, error=str(error))
    try:
        encoded = backbone.encode(clips) if clips else []
    except RuntimeError as error:  # out of memory, say
        if len(batch) == 1:
            yield Features(batch[0].key, None, error=f"cannot be encoded: {error}")
        else:
            for record in (record for record in batch if record.key in keys):
                yield from _encode([record], backbone, level)
        return
    for key, frames in zip(keys, encoded, strict=True):
        yield Features(key, frames if level == "frame" else frames.mean(axis=0), len(frames))


class ExtractionSummary(NamedTuple):
    """Counts of `extract_to_folder`."""

    written: int
    skipped: int
    """already there"""
    failed: int


def extract_to_folder(
    records: Sequence[Record],
    backbone: Backbone,
    out: str | Path,
    *,
    level: str = "frame",
    batch_seconds: float = 60.0,
    progress: bool = False,
) -> ExtractionSummary:
    """Write `KEY.npy` (float32) for each recording, and `index.jsonl` with one line each.

    A line has `key`, `file`, `error` (empty where all went well) and where the sound came from:
    `path`, `start`, `end`. Recordings whose file is there already are not computed again, so that a
    killed run goes on; one whose key now stands for other sound is. `settings.json` says what the
    files are, and other settings or weights are refused.

    Raises:
        OSError: if the folder cannot be written; what is there stays
        ValueError: for an unknown level, a key that points out of the folder, or a folder that
            holds features of another backbone or level

    Other arguments as in `extract`.
    """
    out = Path(out)
    _check_level(level)
    index = {row["key"]: row for row in read_jsonl(out / INDEX_NAME)}
    new = {record.key: _row(record, out) for record in records}
    settings = {"backbone": backbone.name, "weights": backbone.fingerprint, "level": level}
    _check_settings(out, settings)
    todo = [r for r in records if _is_missing(new[r.key], index.get(r.key), out)]
    index |= new
    write_jsonl(index.values(), out / INDEX_NAME)  # before the work: a killed run leaves it, too
    failed = 0
    try:
        for features in extract(
            todo, backbone, level=level, batch_seconds=batch_seconds, progress=progress
        ):
            if features.values is None:
                failed += 1
                index[features.key] |= {"file": None, "error": features.error}
                continue
            with atomic_path(out / str(new[features.key]["file"])) as path, path.open("wb") as file:
                np.save(file, features.values)
    finally:
        write_jsonl(index.values(), out / INDEX_NAME)
    return ExtractionSummary(len(todo) - failed, len(records) - len(todo), failed)


def _row(record: Record, out: Path) -> dict[str, Any]:
    """Return the record's line in the index as it is where all goes well."""
    file = out / f"{record.key}.npy"
    if not file.resolve().is_relative_to(out.resolve()):
        raise ValueError(
            f"the key {record.key!r} points out of {out}; give the recording another key."
        )
    source = {"path": record.path, "start": record.start, "end": record.end}
    return {"key": record.key, "file": file.relative_to(out).as_posix(), "error": "", **source}


def _is_missing(row: dict[str, Any], before: dict[str, Any] | None, out: Path) -> bool:
    """Whether a recording is to be computed; a file made of other sound is removed."""
    file = out / row["file"]
    if before is not None and any(before[n] != row[n] for n in ("path", "start", "end")):
        file.unlink(missing_ok=True)
    return not file.exists()


def _check_settings(out: Path, settings: dict[str, str]) -> None:
    """Write down what the folder holds, or refuse to mix it with something else."""
    path = out / SETTINGS_NAME
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        if there != settings:
            raise ValueError(
                f"{out} holds features made with {there}, not {settings}; choose another folder."
            )
        return
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(settings) + "\n", encoding="utf-8")


def _check_level(level: str) -> None:
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}; choose one of {', '.join(LEVELS)}.")
