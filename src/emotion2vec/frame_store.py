"""Arrays by name in one file that only grows: killed at any moment, shared by any processes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DATA_NAME, INDEX_NAME = "frames.bin", "index.jsonl"
_ALIGNMENT = 64  # bytes: arrays start where processors like to read
_NUMBER = np.dtype("<f4")


class _Place(NamedTuple):
    """Where an array stands in the data."""

    offset: int
    """in bytes"""
    shape: tuple[int, ...]

    @property
    def end(self) -> int:
        """The byte behind it."""
        return self.offset + math.prod(self.shape) * _NUMBER.itemsize


class FrameStore:
    """float32 arrays of any shapes in a folder: `frames.bin`, and where each stands, `index.jsonl`.

    Both files only grow, under a lock: first the data, and when these are on the disk, their lines.
    What a kill leaves of an array has no line and is passed over; a line that it cut short is cut
    off by the next writer. So a line always stands for a whole array.

    Args:
        folder: made when something is written

    Raises:
        OSError: if the folder cannot be read

    >>> import tempfile
    >>> store = FrameStore(tempfile.mkdtemp())
    >>> store.append({"a": np.ones((3, 2), np.float32)})
    >>> "a" in store, store.read(["a"])["a"].shape
    (True, (3, 2))
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self._places: dict[str, _Place] = {}
        self._known = 0  # bytes of the index that are read, all of them whole lines
        self._catch_up()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def append(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Write arrays behind those that are there; all of them stay, also if the machine stops.

        Raises:
            OSError: if the folder cannot be written or the disk is full; what is there stays
        """
        from filelock import FileLock

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock"):
                self._catch_up()  # with what others wrote meanwhile
                lines = self._write_data(arrays)
                with (self.folder / INDEX_NAME).open("ab") as index:
                    index.truncate(self._known)  # without what a kill cut short
                    index.write(lines)
                self._catch_up()
        except OSError as error:
            raise OSError(
                error.errno,
                f"cannot write features into {self.folder}: {error.strerror or error}; what was "
                "there before stays, free space or choose another place",
            ) from error

    def read(self, names: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Read-only views of arrays in the file, by name: memory is taken as they are looked at.

        Raises:
            KeyError: if there is no such array
        """
        places = {name: self._places[name] for name in names}
        if not places:
            return {}
        # One map for all: each would keep the file open, and files and maps are few hundred.
        numbers = max(place.end for place in places.values()) // _NUMBER.itemsize
        everything = np.memmap(self.folder / DATA_NAME, _NUMBER, "r", shape=(numbers,))
        return {
            name: everything[
                place.offset // _NUMBER.itemsize : place.end // _NUMBER.itemsize
            ].reshape(place.shape)
            for name, place in places.items()
        }

    def _write_data(self, arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
        """Append arrays to the data; return the lines that say where they stand."""
        rows = []
        with (self.folder / DATA_NAME).open("ab") as data:
            for name, array in arrays.items():
                data.write(bytes(-data.tell() % _ALIGNMENT))
                row = {"content": name, "offset": data.tell(), "shape": array.shape}
                data.write(np.ascontiguousarray(array, _NUMBER).data)
                rows.append(json.dumps(row) + "\n")
            data.flush()
            os.fsync(data.fileno())  # before the lines, in whatever order disks write
        return "".join(rows).encode()

    def _catch_up(self) -> None:
        """Take in the lines that are new since the last time, up to the first that is broken."""
        index, data = self.folder / INDEX_NAME, self.folder / DATA_NAME
        if not index.is_file() or index.stat().st_size < self._known:
            self._places, self._known = {}, 0  # somebody removed it
        if not index.is_file() or not data.is_file():
            return
        with index.open("rb") as file:
            file.seek(self._known)
            lines = file.readlines()
        size = data.stat().st_size  # after the lines: what they stand for was there before them
        for line in lines:
            try:
                row = json.loads(line)
                content, place = row["content"], _Place(row["offset"], tuple(row["shape"]))
            except (ValueError, KeyError, TypeError):
                return
            if not line.endswith(b"\n") or place.end > size:
                return
            self._places[content] = place
            self._known += len(line)
