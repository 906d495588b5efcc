"""Features of recordings: in memory, or files in a folder.

T frames, D width, U utterance tokens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from emotion2vec.addresses import is_address
from emotion2vec.backbones import Backbone
from emotion2vec.batching import encode_records
from emotion2vec.encoding import Encoded
from emotion2vec.feature_files import FORMATS, FeatureFiles, Row
from emotion2vec.folders import Folder
from emotion2vec.jsonl import parse_jsonl, write_jsonl
from emotion2vec.manifest import Record

LEVELS = ("frame", "utterance", "tokens")
DTYPES = ("float16", "float32")
INDEX_NAME = "index.jsonl"
SETTINGS_NAME = "settings.json"
NOT_YET = "not computed yet"


class Features(NamedTuple):
    """What came out of one recording: values, or the reason why there are none."""

    key: str
    values: NDArray[np.float32] | None
    """(T, D) at frame level, (D,) at utterance level, (U, D) of the tokens"""
    num_frames: int = 0
    error: str = ""


def extract(
    records: Sequence[Record],
    backbone: Backbone,
    *,
    level: str = "frame",
    batch_seconds: float = 20.0,
    progress: bool = False,
) -> Iterator[Features]:
    """Features of each recording, longest first.

    A recording that cannot be read comes with an `error`; the others go on. A batch holds at most
    `batch_seconds` of audio, padding counted, or one recording; answers do not depend on it.
    Recordings over a minute run in bounded memory, see `emotion2vec.long`.

    Args:
        records: what to read
        backbone: what makes the features
        level: "frame" (T, D), one every 20 ms; "utterance" (D,), the mean over frames; "tokens"
            (U, D), the model's utterance tokens
        batch_seconds: bounds the memory
        progress: show a bar

    Raises:
        ValueError: for an unknown level, or tokens of a backbone without any
    """
    _check_level(level, backbone)
    title = f"extracting ({backbone.name})" if progress else ""
    for outcome in encode_records(
        records, backbone.encode, batch_seconds=batch_seconds, progress=title
    ):
        key = records[outcome.position].key
        if outcome.error:
            yield Features(key, None, error=outcome.error)
        else:
            yield Features(key, _at_level(outcome.value, level), len(outcome.value.frames))


def _at_level(encoded: Encoded, level: str) -> NDArray[np.float32]:
    if level == "utterance":
        # In float64: numpy adds frame to frame, and an hour has 180,000.
        return encoded.frames.mean(axis=0, dtype=np.float64).astype(np.float32)
    return encoded.frames if level == "frame" else encoded.tokens


class ExtractionSummary(NamedTuple):
    """Counts of `extract_to_folder`, or of `emotion2vec.ray_extract.extract_with_ray`."""

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
    file_format: str = "npy",
    dtype: str = "float16",
    batch_seconds: float = 20.0,
    progress: bool = False,
) -> ExtractionSummary:
    """Write the features of each recording, and `index.jsonl` with one line each.

    A line has `key`, `file`, `error` (empty where all went well) and where the sound came from:
    `path`, `start`, `end`. It is written before the work and after; in between and after a kill
    the lines of what was still to be done say "not computed yet". What is there already is not
    computed again, so that a killed run goes on; a recording whose key now stands for other sound
    is. `settings.json` says what the files are, and other settings or weights are refused.

    Args:
        records: what to read
        backbone: what makes the features
        out: folder of the files; for another fsspec address than file:// see
            `emotion2vec.ray_extract`
        level: as in `extract`
        file_format: "npy" or "npz", a file each; "parquet", files of many rows
        dtype: of the values in files, "float16" or "float32"
        batch_seconds: as in `extract`
        progress: show a bar

    Raises:
        OSError: if the folder cannot be written, or another run writes to it; what is there stays
        ValueError: for an unknown option, a key that comes twice or cannot be a file's name, or a
            folder that holds features of another backbone or with other settings
    """
    if is_address(out) and not str(out).startswith(("file://", "local://")):
        raise ValueError(
            f"out is {out}, and this engine writes into folders only; choose a folder, or take "
            "the engine that writes to addresses (--engine ray)."
        )
    folder = Folder(out)
    assert folder.local is not None
    settings = settings_of(backbone, level, file_format, dtype)
    with folder.locked():
        files: FeatureFiles = FORMATS[file_format](folder.local)
        return _fill(records, backbone, folder, files, settings, batch_seconds, progress)


def _fill(
    records: Sequence[Record],
    backbone: Backbone,
    folder: Folder,
    files: FeatureFiles,
    settings: dict[str, str],
    batch_seconds: float,
    progress: bool,
) -> ExtractionSummary:
    """Compute what is missing in a folder that nobody else writes to."""
    level, dtype = settings["level"], settings["dtype"]
    index, todo = open_index(records, files, folder, settings)
    failed = 0
    try:
        for features in extract(
            todo, backbone, level=level, batch_seconds=batch_seconds, progress=progress
        ):
            failed += not write_features(features, index[features.key], files, np.dtype(dtype))
    finally:  # also where the user stops it
        try:
            files.close()
        finally:
            write_index(index, folder)
    return ExtractionSummary(len(todo) - failed, len(records) - len(todo), failed)


Index = dict[str, Row]
"""The lines of index.jsonl, by key."""


def settings_of(backbone: Backbone, level: str, file_format: str, dtype: str) -> dict[str, str]:
    """What a folder of such features holds, as settings.json says it.

    Raises:
        ValueError: for an option that there is not, or tokens of a backbone without any
    """
    _check_level(level, backbone)
    for name, value, known in (("dtype", dtype, DTYPES), ("format", file_format, FORMATS)):
        if value not in known:
            raise ValueError(f"the {name} is {value!r}; choose one of {', '.join(known)}.")
    settings = {"backbone": backbone.name, "weights": backbone.fingerprint, "level": level}
    return settings | {"format": file_format, "dtype": dtype}


def open_index(
    records: Sequence[Record], files: FeatureFiles, folder: Folder, settings: dict[str, str]
) -> tuple[Index, list[Record]]:
    """The folder's index, a line for each recording in it, and the recordings still to be done.

    Raises:
        OSError: if the folder cannot be written
        ValueError: for a key that comes twice or cannot be used, or a folder with other settings
    """
    _check_keys(records, files)
    _check_settings(folder, settings)
    index: Index = {}
    if folder.has(INDEX_NAME):
        with folder.open(INDEX_NAME) as lines:
            index = {row["key"]: row for row in parse_jsonl(lines)}
    todo = [record for record in records if not _is_there(record, index, files)]
    write_index(index, folder)  # before the work: a killed run leaves it, too
    return index, todo


def write_index(index: Index, folder: Folder) -> None:
    """Write index.jsonl, the whole file or nothing.

    Raises:
        OSError: if the folder cannot be written
    """
    with folder.writing(INDEX_NAME) as path:
        write_jsonl(index.values(), path)


def _check_keys(records: Sequence[Record], files: FeatureFiles) -> None:
    """Refuse keys under which results would not be found again, before anything is written."""
    seen: set[str] = set()
    for record in records:
        if record.key in seen:
            raise ValueError(f"the key {record.key!r} comes twice; give each recording its own.")
        seen.add(record.key)
        files.find(record.key)


def _is_there(record: Record, index: Index, files: FeatureFiles) -> bool:
    """Whether a recording has its file; bring its line in the index up to date."""
    row = row_of(record, files)
    before = index.get(record.key)
    if before is not None and _place(before) != _place(row):
        files.forget(record.key)
        row = row_of(record, files)
    index[record.key] = row
    return row["file"] is not None


def row_of(record: Record, files: FeatureFiles) -> Row:
    """The line of a recording before its features are written, or where they are already."""
    file = files.find(record.key)
    # Whole: the next run may start in another folder.
    source = {"path": _whole(record.path), "start": record.start, "end": record.end}
    return {"key": record.key, "file": file, "error": "" if file else NOT_YET, **source}


def _place(source: Row) -> tuple[str, float, float | None]:
    """Return where sound comes from, however its path is spelled."""
    return _whole(source["path"]), source["start"], source["end"]


def _whole(path: str) -> str:
    return path if is_address(path) else os.path.abspath(path)


def write_features(features: Features, row: Row, files: FeatureFiles, dtype: np.dtype[Any]) -> bool:
    """Write the features of one recording, or its error into its line; whether there are any.

    Raises:
        OSError: if the folder cannot be written
    """
    if features.values is None:
        row["error"] = features.error
        return False
    with np.errstate(over="ignore"):
        values = features.values.astype(dtype)
    if not np.isfinite(values).all():
        cure = "extract them as float32"
        if not np.isfinite(features.values).all():
            cure = "check the model's weights"
        row["error"] = f"the features have values beyond {dtype}; {cure}."
        return False
    files.write(row, values)  # which empties the error, at once or when a part is full
    return True


def _check_settings(out: Folder, settings: dict[str, str]) -> None:
    """Write down what the folder holds, or refuse to mix it with something else."""
    if out.has(SETTINGS_NAME):
        there = json.loads(out.read(SETTINGS_NAME))
        # A folder's name may change, the fingerprint tells the models apart.
        if there | {"backbone": ""} != settings | {"backbone": ""}:
            raise ValueError(
                f"{out} holds features made with {there}, not {settings}; choose another folder."
            )
        return
    with out.writing(SETTINGS_NAME) as temporary:
        temporary.write_text(json.dumps(settings) + "\n", encoding="utf-8")


def _check_level(level: str, backbone: Backbone) -> None:
    if level not in LEVELS:
        raise ValueError(f"level is {level!r}; choose one of {', '.join(LEVELS)}.")
    if level == "tokens" and not backbone.num_tokens:
        raise ValueError(f"{backbone.name} has no utterance tokens; choose frame or utterance.")
