"""Shards: tar files of many recordings, each with a list of what lies where; here or far away.

SHARD.tar holds KEY.flac and KEY.json of each recording, as the webdataset library has it;
SHARD.jsonl beside it has a line a recording: key, offset and size in bytes of its sound, samples
at 16 kHz.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from emotion2vec.addresses import is_address, is_local, open_folder
from emotion2vec.atomic import atomic_path
from emotion2vec.audio import Waveform, load_audio
from emotion2vec.caches import cache_folder

logger = logging.getLogger(__name__)

ATTEMPTS = 4
"""To fetch a shard, with 1, 2 and 4 seconds between them."""

# What tells one content of a file from another: the first of these that a file system knows.
_MARKS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "blob_id", "CRC", "created")


class UnreachableError(RuntimeError):
    """A shard cannot be fetched: nothing that its recordings can help."""


class Entry(NamedTuple):
    """Where a recording stands."""

    key: str
    offset: int
    """first byte of its sound in a shard, or of its line in a list"""
    size: int
    """bytes of these"""
    samples: int
    """at 16 kHz; 0 where there is an error"""
    error: str = ""
    """why it cannot be used"""


@dataclass(frozen=True)
class Shard:
    """One tar file of recordings."""

    folder: str
    """a folder's path, or any address that fsspec knows"""
    name: str
    """of the tar file"""
    size: int
    """in bytes; 0 where the file system does not say it"""
    stamp: str
    """changes with its content"""
    local: bool
    """whether it can be read where it lies"""

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"

    def entries(self) -> Iterator[Entry]:
        """What it holds, from the list beside it.

        Raises:
            ValueError: if the list is broken
        """
        files, root = open_folder(self.folder)
        path = f"{root}/{index_name(self.name)}"
        with files.open(path, "rb") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                    yield Entry(row["key"], row["offset"], row["size"], row["samples"])
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"{path} is broken ({error}); pack the shards anew."
                    ) from error

    def key(self, offset: int, size: int) -> str:
        """The key of a recording; errors as `entries`."""
        return next(e.key for e in self.entries() if e[1:3] == (offset, size))

    def place(self, offset: int, size: int) -> str:
        """Where a recording is, for people."""
        return f"{self}, byte {offset},"

    def load(self, offset: int, size: int, cache: ShardCache | None) -> Waveform:
        """The sound of a recording, (S,).

        Raises:
            OSError: if the shard cannot be read
            ValueError: if the recording is broken
            UnreachableError: if the shard cannot be fetched
        """
        data = self._read(offset, size, cache)
        if len(data) < size:
            raise ValueError(f"{self} ends at byte {offset + len(data)}; copy or pack it again.")
        try:
            return load_audio(data)
        except ValueError as error:
            raise ValueError(f"byte {offset} of {self}: {error}") from error

    def _read(self, offset: int, size: int, cache: ShardCache | None) -> bytes:
        while True:
            path = (
                Path(self.folder) / self.name if self.local else (cache or ShardCache()).get(self)
            )
            try:
                with path.open("rb") as file:
                    file.seek(offset)
                    return file.read(size)
            except FileNotFoundError:
                if self.local:
                    raise
                # Another process needed the room between finding and opening it: fetch it again.


def index_name(shard: str) -> str:
    """The name of the list beside a tar file.

    >>> index_name("shard-000000.tar")
    'shard-000000.jsonl'
    """
    return f"{shard.removesuffix('.tar')}.jsonl"


def find_shards(source: str | Path) -> list[Shard]:
    """The shards in a folder or at an fsspec address; none if the folder holds something else.

    Raises:
        FileNotFoundError: if there are none at an address
        ImportError: if fsspec needs a library for the address that is not installed
    """
    if not is_address(source):
        folder = Path(source)
        if not any(folder.joinpath(index_name(p.name)).is_file() for p in folder.glob("*.tar")):
            return []
    files, root = open_folder(source)
    files.invalidate_cache()
    try:
        found = {i["name"].rstrip("/").rpartition("/")[2]: i for i in files.ls(root, detail=True)}
    except FileNotFoundError:
        found = {}
    names = sorted(name for name in found if name.endswith(".tar"))
    whole = [name for name in names if index_name(name) in found]
    if not whole:
        raise FileNotFoundError(
            f"{source} holds no shards (.tar files, each with its .jsonl); "
            "check the address, or make them: emotion2vec pack."
        )
    if len(whole) < len(names):
        logger.warning("%s: %d shards are not finished", source, len(names) - len(whole))
    local = is_local(files)
    return [
        Shard(
            folder=root if local else str(source),
            name=name,
            size=found[name].get("size") or 0,
            stamp=f"{_mark(found[name])} {_mark(found[index_name(name)])}",
            local=local,
        )
        for name in whole
    ]


def _mark(info: dict[str, Any]) -> str:
    return f"{info.get('size')} {next((info[name] for name in _MARKS if name in info), '')}"


class ShardCache:
    """Fetched shards in a folder of bounded size, which any number of processes share.

    What was not used for longest goes first. One shard is fetched at a time.

    Args:
        limit_bytes: size of the folder; None for no limit
        folder: EMOTION2VEC_CACHE/shards, or ~/.cache/emotion2vec/shards, if not given
    """

    def __init__(self, limit_bytes: int | None = None, folder: str | Path | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.folder = Path(folder or cache_folder() / "shards").expanduser()

    def get(self, shard: Shard) -> Path:
        """The shard's copy in the cache, fetched if it is not there.

        Raises:
            UnreachableError: if it cannot be fetched
            OSError: if the folder cannot be written
        """
        from filelock import FileLock

        name = hashlib.sha256(f"{shard}\n{shard.stamp}".encode()).hexdigest()[:24]
        path = self.folder / f"{name}.tar"
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)  # in use
            return path
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            if not path.is_file():  # not fetched by another process meanwhile
                self._make_room(shard.size)
                with atomic_path(path) as temporary:
                    _fetch(shard, temporary)
        return path

    def _make_room(self, size: int) -> None:
        """Remove what was not used for longest; who still has it open reads on."""
        for leftover in self.folder.glob(".*.tmp"):  # of a killed process: we hold the lock
            leftover.unlink()
        if self.limit_bytes is None:
            return
        files = [(p.stat().st_mtime, p.stat().st_size, p) for p in self.folder.glob("*.tar")]
        total = size + sum(file[1] for file in files)
        for _, freed, path in sorted(files):
            if total <= self.limit_bytes:
                return
            path.unlink()
            total -= freed


def _fetch(shard: Shard, path: Path) -> None:
    """Copy a shard to a local file; tries several times."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            files, root = open_folder(shard.folder)
            files.get_file(f"{root}/{shard.name}", str(path))
            if shard.size and path.stat().st_size != shard.size:
                raise OSError(f"{path.stat().st_size} of {shard.size} bytes came")
            return
        except Exception as error:  # each kind of address has errors of its own
            if attempt == ATTEMPTS or isinstance(error, FileNotFoundError):
                reason = f"{type(error).__name__}: {error}"
                raise UnreachableError(f"{shard} cannot be fetched ({reason})") from error
            logger.warning("%s cannot be fetched, trying again: %s", shard, error)
            time.sleep(2 ** (attempt - 1))
