"""Files of features: .npy or .npz, one a recording, or .parquet, many rows each."""

from __future__ import annotations

import os
import posixpath
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion2vec.atomic import atomic_path
from emotion2vec.folders import Folder

Row = dict[str, Any]
"""A line of the index; whoever writes its values fills in `file` and empties `error`."""

MAX_NAME_BYTES = 249
"""Of 255 that file systems take; the name while writing is 5 longer."""

READERS = 16
"""Threads that read which keys are in the parts: far away, most of the time is waiting."""

PART_ROWS = 4096
PART_BYTES = 64 * 2**20
"""A part of a parquet folder is written when it has so many rows or bytes: what a kill can cost."""


class FeatureFiles(ABC):
    """The features in a folder, found again by key."""

    @abstractmethod
    def find(self, key: str) -> str | None:
        """The file that holds the features of `key`, relative to the folder, if one does.

        Raises:
            ValueError: if the key cannot be the name of a file in the folder
        """

    @abstractmethod
    def forget(self, key: str) -> None:
        """Remove the features of `key`, which now stands for other sound.

        Raises:
            ValueError: if files of this kind cannot do that
        """

    @abstractmethod
    def write(self, row: Row, values: NDArray[Any]) -> None:
        """Write the features of a recording.

        Raises:
            OSError: if the folder cannot be written
        """

    def close(self) -> None:  # noqa: B027 (files of one row each have nothing left to do)
        """Write what is still to be written."""


class NpyFiles(FeatureFiles):
    """KEY.npy: the values."""

    suffix = ".npy"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, key: str) -> Path:
        """Return the file of a key; no two keys have the same."""
        name = f"{key}{self.suffix}"
        if os.path.isabs(key) or posixpath.normpath(name) != name or name.startswith("../"):
            raise ValueError(
                f"the key {key!r} is no plain name of a file, or points out of {self.folder}; "
                "give the recording another key."
            )
        longest = max(len(os.fsencode(part)) for part in name.split("/"))
        if longest > MAX_NAME_BYTES:
            raise ValueError(
                f"the key {key!r} is too long for a file's name ({longest} bytes of at most "
                f"{MAX_NAME_BYTES}); give the recording another key, or write parquet."
            )
        return self.folder / name

    def find(self, key: str) -> str | None:
        """As in `FeatureFiles`."""
        return f"{key}{self.suffix}" if self._path(key).is_file() else None

    def forget(self, key: str) -> None:
        """As in `FeatureFiles`."""
        self._path(key).unlink(missing_ok=True)

    def write(self, row: Row, values: NDArray[Any]) -> None:
        """As in `FeatureFiles`."""
        path = self._path(row["key"])
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            self._save(file, row, values)
        row |= {"file": f"{row['key']}{self.suffix}", "error": ""}

    def _save(self, file: Any, row: Row, values: NDArray[Any]) -> None:
        np.save(file, values)


class NpzFiles(NpyFiles):
    """KEY.npz, compressed: `values`, and where they come from: `path`, `start`, `end` (or NaN)."""

    suffix = ".npz"

    def _save(self, file: Any, row: Row, values: NDArray[Any]) -> None:
        end = np.nan if row["end"] is None else row["end"]
        np.savez_compressed(file, values=values, path=row["path"], start=row["start"], end=end)


class ParquetFiles(FeatureFiles):
    """part-00000.parquet and so on, with a row a recording, here or at an fsspec address.

    Columns: `key`, `path`, `start`, `end`, `shape`, and `values` as a flat list. Needs the extra
    `parquet`.

    Args:
        folder: where the parts are
        task: name of one of many tasks that write to the folder at once: its parts are called
            part-TASK-00000.parquet, and it knows of no others
    """

    def __init__(self, folder: Folder | Path, *, task: str = "") -> None:
        import pyarrow.parquet  # noqa: F401 (told before anything is computed)

        self.folder = folder if isinstance(folder, Folder) else Folder(folder)
        self.prefix = f"part-{task}-" if task else "part-"
        parts = list(self._own()) if task else self.folder.names(".parquet")
        with ThreadPoolExecutor(READERS) as pool:
            found = zip(parts, pool.map(self._keys, parts), strict=True)
            self.parts = {key: part for part, keys in found for key in keys}
        numbers = [re.fullmatch(rf"{self.prefix}(\d+)\.parquet", part) for part in parts]
        self.next_part = 1 + max((int(n[1]) for n in numbers if n), default=-1)
        self.waiting: list[tuple[Row, NDArray[Any]]] = []
        self.waiting_bytes = 0

    def _name(self, number: int) -> str:
        return f"{self.prefix}{number:05d}.parquet"

    def _own(self) -> Iterator[str]:
        """The parts of the task, by asking for them: a listing of a large bucket takes long."""
        number = 0
        while self.folder.has(self._name(number)):
            yield self._name(number)
            number += 1

    def _keys(self, part: str) -> list[str]:
        import pyarrow.parquet

        with self.folder.open(part) as file:
            return list(pyarrow.parquet.read_table(file, columns=["key"])["key"].to_pylist())

    def find(self, key: str) -> str | None:
        """As in `FeatureFiles`."""
        try:
            key.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"the key {key!r} is no valid text, which parquet needs; give the recording "
                "another key, or write npy."
            ) from None
        return self.parts.get(key)

    def forget(self, key: str) -> None:
        """As in `FeatureFiles`."""
        if key in self.parts:
            raise ValueError(
                f"the key {key!r} stands for other sound than in {self.folder}/{self.parts[key]}, "
                "where no single row can be replaced; choose another folder."
            )

    def write(self, row: Row, values: NDArray[Any]) -> None:
        """As in `FeatureFiles`."""
        self.waiting.append((row, values))
        self.waiting_bytes += values.nbytes
        if len(self.waiting) >= PART_ROWS or self.waiting_bytes >= PART_BYTES:
            self.close()

    def close(self) -> None:
        """As in `FeatureFiles`."""
        import pyarrow.parquet

        if not self.waiting:
            return
        rows, values = zip(*self.waiting, strict=True)
        name = self._name(self.next_part)
        with self.folder.writing(name) as path:
            pyarrow.parquet.write_table(_table(rows, values), path)
        for row in rows:
            row |= {"file": name, "error": ""}
            self.parts[row["key"]] = name
        self.next_part += 1
        self.waiting, self.waiting_bytes = [], 0


def _table(rows: Sequence[Row], values: Sequence[NDArray[Any]]) -> Any:
    """Return the rows and their values as a pyarrow table."""
    import pyarrow

    lengths = np.array([array.size for array in values])
    flat = pyarrow.array(np.concatenate([array.ravel() for array in values]))
    offsets = pyarrow.array(np.concatenate([[0], lengths.cumsum()]), pyarrow.int64())
    columns: dict[str, Any] = {"key": [row["key"] for row in rows]}
    columns["path"] = [os.fsencode(row["path"]).decode(errors="backslashreplace") for row in rows]
    columns |= {
        name: pyarrow.array([row[name] for row in rows], pyarrow.float64())
        for name in ("start", "end")
    }
    columns["shape"] = [list(array.shape) for array in values]
    columns["values"] = pyarrow.LargeListArray.from_arrays(offsets, flat)
    return pyarrow.table(columns)


FORMATS: dict[str, type[Any]] = {"npy": NpyFiles, "npz": NpzFiles, "parquet": ParquetFiles}
