"""Files of features: .npy or .npz, one a recording, or .parquet, many rows each."""

from __future__ import annotations

import os
import posixpath
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emotion2vec.atomic import atomic_path

Row = dict[str, Any]
"""A line of the index; whoever writes its values fills in `file` and empties `error`."""

MAX_NAME_BYTES = 249
"""Of 255 that file systems take; the name while writing is 5 longer."""

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
    """part-00000.parquet and so on, with a row a recording.

    Columns: `key`, `path`, `start`, `end`, `shape`, and `values` as a flat list. Needs the extra
    `parquet`.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow.parquet

        self.folder = folder
        parts = sorted(folder.glob("part-*.parquet"))
        self.parts = {
            key: part.name
            for part in parts
            for key in pyarrow.parquet.read_table(part, columns=["key"])["key"].to_pylist()
        }
        self.next_part = 1 + int(parts[-1].stem.removeprefix("part-")) if parts else 0
        self.waiting: list[tuple[Row, NDArray[Any]]] = []
        self.waiting_bytes = 0

    def find(self, key: str) -> str | None:
        """As in `FeatureFiles`."""
        return self.parts.get(key)

    def forget(self, key: str) -> None:
        """As in `FeatureFiles`."""
        if key in self.parts:
            raise ValueError(
                f"the key {key!r} stands for other sound than in {self.folder / self.parts[key]}, "
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
        import pyarrow
        import pyarrow.parquet

        if not self.waiting:
            return
        rows, values = zip(*self.waiting, strict=True)
        lengths = np.array([array.size for array in values])
        flat = pyarrow.array(np.concatenate([array.ravel() for array in values]))
        offsets = pyarrow.array(np.concatenate([[0], lengths.cumsum()]), pyarrow.int64())
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in ("key", "path")}
        columns |= {
            name: pyarrow.array([row[name] for row in rows], pyarrow.float64())
            for name in ("start", "end")
        }
        columns["shape"] = [list(array.shape) for array in values]
        columns["values"] = pyarrow.LargeListArray.from_arrays(offsets, flat)
        name = f"part-{self.next_part:05d}.parquet"
        with atomic_path(self.folder / name) as path:
            pyarrow.parquet.write_table(pyarrow.table(columns), path)
        for row in rows:
            row |= {"file": name, "error": ""}
            self.parts[row["key"]] = name
        self.next_part += 1
        self.waiting, self.waiting_bytes = [], 0


FORMATS: dict[str, type[Any]] = {"npy": NpyFiles, "npz": NpzFiles, "parquet": ParquetFiles}
