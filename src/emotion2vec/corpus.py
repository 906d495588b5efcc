"""Recordings by the million: an index of some bytes each; a recording is read when it is needed.

N recordings.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion2vec.atomic import atomic_path
from emotion2vec.audio import SAMPLE_RATE, Waveform
from emotion2vec.manifest import (
    Record,
    come_twice,
    find_recordings,
    parse_record,
    row_of,
    stream_manifest,
)
from emotion2vec.shards import Entry, Shard, ShardCache, find_shards

logger = logging.getLogger(__name__)

Data = str | Path | Record | Sequence[str | Path | Record]
"""Lists, folders, globs, files, folders or addresses of shards, and records."""

READERS = 16
"""Threads that read headers: on a disk far away, most of the time is waiting."""

_CHUNK = 4096
_LONGEST = 2**31 - 1


class Skipped(NamedTuple):
    """A recording that was left out, and why."""

    key: str
    error: str


@dataclass(frozen=True)
class Listing:
    """A list of JSON lines: a file, or, of what folders and other lists hold, in memory."""

    path: str
    """absolute; empty for lines in memory"""
    stamp: str
    """changes with its content"""
    lines: bytes = field(default=b"", repr=False)

    def __str__(self) -> str:
        return self.path

    def entries(self) -> Iterator[Entry]:
        """What it holds; lengths that it does not tell are read from headers.

        Raises:
            OSError: if the list cannot be read
            ValueError: if it is broken, or empty
        """
        lines = self._lines()
        with ThreadPoolExecutor(READERS) as pool:
            while chunk := list(islice(lines, _CHUNK)):
                headers = pool.map(_header, [r for *_, r in chunk if _told(r) is None])
                for offset, size, record in chunk:
                    told = _told(record)
                    samples, error = next(headers) if told is None else (told, "")
                    yield Entry(record.key, offset, size, samples, error)

    def _lines(self) -> Iterator[tuple[int, int, Record]]:
        """Return first byte, size and record of each line, one in memory at a time."""
        if self.path:
            line = None
            for line, record in stream_manifest(self.path):
                yield line.offset, line.size, record
            if line is None:
                raise ValueError(f"{self.path} lists no recordings; write one a line.")
            return
        offset = 0
        for text in io.BytesIO(self.lines):
            yield offset, len(text), parse_record(json.loads(text), Path())
            offset += len(text)

    def key(self, offset: int, size: int) -> str:
        """The key of a line's record; errors as `record`."""
        return self.record(offset, size).key

    def place(self, offset: int, size: int) -> str:
        """The file of a line's record; errors as `record`."""
        return self.record(offset, size).path

    def record(self, offset: int, size: int) -> Record:
        """The record of a line.

        Raises:
            OSError: if the list cannot be read
            ValueError: if the list has changed
        """
        try:
            if not self.path:
                text = self.lines[offset : offset + size]
                return parse_record(json.loads(text), Path())
            with open(self.path, "rb") as file:
                file.seek(offset)
                text = file.read(size)
            return parse_record(json.loads(text), Path(self.path).parent)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} has no record at byte {offset} any more ({error}); "
                "lists must not change while they are in use."
            ) from error


@dataclass(frozen=True)
class Corpus:
    """Recordings with their lengths, and those left out: 20 bytes a recording."""

    sources: tuple[Listing | Shard, ...]
    source: NDArray[np.int32]
    """(N,): in which of the sources it is"""
    offset: NDArray[np.int64]
    """(N,): first byte of its line in the list, of its sound in the shard"""
    size: NDArray[np.int32]
    """(N,): bytes"""
    lengths: NDArray[np.int32]
    """(N,): samples at 16 kHz; what a list says is believed"""
    skipped: tuple[Skipped, ...]
    digest: str
    """Changes with keys, lengths and order: a resumed run must see the same corpus."""
    fingerprint: str
    """of sources and settings: with another, the index must be made anew"""

    def __len__(self) -> int:
        return len(self.lengths)

    def record(self, number: int) -> Record:
        """The record of a recording that is not in a shard; errors as `Listing.record`."""
        listing = self.sources[self.source[number]]
        assert isinstance(listing, Listing)
        return listing.record(int(self.offset[number]), int(self.size[number]))

    def load(self, number: int, cache: ShardCache | None = None) -> Waveform:
        """The sound of a recording, (S,).

        Raises:
            OSError, ValueError: if it cannot be read
            UnreachableError: if its shard cannot be fetched
        """
        source = self.sources[self.source[number]]
        if isinstance(source, Listing):
            return self.record(number).load()
        return source.load(int(self.offset[number]), int(self.size[number]), cache)

    def name(self, number: int) -> tuple[str, str]:
        """Key of a recording, and where it is."""
        source = self.sources[self.source[number]]
        offset, size = int(self.offset[number]), int(self.size[number])
        try:
            return source.key(offset, size), source.place(offset, size)
        except (OSError, ValueError):  # the list is gone
            return f"recording {number}", f"recording {number}"

    def save(self, path: str | Path) -> None:
        """Write the index; `open_corpus` reads it.

        Raises:
            OSError: if it cannot be written; an older one then stays
        """
        from safetensors.numpy import save

        lines = b"".join(s.lines for s in self.sources if isinstance(s, Listing))
        arrays = {name: getattr(self, name) for name in ("source", "offset", "size", "lengths")}
        arrays["lines"] = np.frombuffer(lines, np.uint8)
        arrays["skipped"] = np.frombuffer(json.dumps(self.skipped).encode(), np.uint8)
        rows = [{k: v for k, v in vars(source).items() if k != "lines"} for source in self.sources]
        metadata = {"digest": self.digest, "fingerprint": self.fingerprint}
        metadata["sources"] = json.dumps(rows)
        with atomic_path(path) as temporary:
            temporary.write_bytes(save(arrays, metadata))


def open_corpus(
    data: Data, *, min_seconds: float = 0.0, saved: Path | None = None, progress: bool = False
) -> Corpus:
    """The index of recordings; their lengths are read from headers where no list tells them.

    Args:
        data: what to index
        min_seconds: shorter recordings are left out
        saved: an index that is taken, without reading anything, if it is of the same sources
        progress: show a bar

    Raises:
        FileNotFoundError: if a source names nothing
        ValueError: if a list is broken, or two recordings have one key
    """
    sources = _find_sources(data)
    stamps = [(str(source), source.stamp) for source in sources]
    fingerprint = hashlib.sha256(json.dumps([stamps, min_seconds]).encode()).hexdigest()
    corpus = _load(saved, fingerprint) if saved and saved.is_file() else None
    return corpus or _index(sources, min_seconds, fingerprint, progress)


def too_short(key: str, place: str, samples: int, min_seconds: float) -> Skipped:
    """The note that a recording is shorter than the setting `min_clip_seconds`.

    >>> too_short("a", "a.wav", 1600, 0.25).error[:45]
    'a.wav is 0.100 s, under min_clip_seconds (0.2'
    """
    seconds = f"{samples / SAMPLE_RATE:.3f} s, under min_clip_seconds ({min_seconds})"
    return Skipped(key, f"{place} is {seconds}; leave it out or lower that setting.")


def _find_sources(data: Data) -> tuple[Listing | Shard, ...]:
    sources: list[Listing | Shard] = []
    records: list[Record] = []
    for item in [data] if isinstance(data, str | Path | Record) else data:
        if isinstance(item, Record):
            records.append(item)
            continue
        path = Path(item)
        if path.suffix.lower() == ".jsonl" and path.is_file():
            status = path.stat()
            stamp = f"{status.st_size} {status.st_mtime_ns}"
            sources.append(Listing(os.path.abspath(path), stamp))
            continue
        shards = find_shards(item)
        sources += shards
        records += [] if shards else find_recordings(item)
    return (*sources, _listing_of(records)) if records else tuple(sources)


def _listing_of(records: Sequence[Record]) -> Listing:
    """Return the list of records in memory; its stamp changes with their files."""
    lines = "".join(json.dumps(row_of(record)) + "\n" for record in records).encode()
    stamp = hashlib.sha256(lines)
    for record in records:
        try:
            status = os.stat(record.path)
            stamp.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        except OSError:  # said where it is read
            stamp.update(b"-\n")
    return Listing("", stamp.hexdigest(), lines)


class _Columns:
    """The index while it grows."""

    def __init__(self) -> None:
        self.source, self.size, self.lengths = array("i"), array("i"), array("i")
        self.offset, self.keys = array("q"), bytearray()

    def add(self, source: int, offset: int, size: int, length: int, key: str) -> None:
        """Add a recording."""
        self.source.append(source)
        self.offset.append(offset)
        self.size.append(size)
        self.lengths.append(min(length, _LONGEST))
        self.keys += hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _index(
    sources: Sequence[Listing | Shard], min_seconds: float, fingerprint: str, progress: bool
) -> Corpus:
    """Read all sources, one recording in memory at a time."""
    columns, skipped = _Columns(), list[Skipped]()
    with tqdm(desc="reading lists", unit=" clips", disable=not progress, leave=False) as bar:
        for number, source in enumerate(sources):
            for key, offset, size, samples, error in source.entries():
                bar.update()
                if error:
                    skipped.append(Skipped(key, error))
                elif samples < int(min_seconds * SAMPLE_RATE):
                    place = source.place(offset, size)
                    skipped.append(too_short(key, place, samples, min_seconds))
                else:
                    columns.add(number, offset, size, samples, key)
    keys = np.frombuffer(columns.keys, np.uint64)
    corpus = Corpus(
        sources=tuple(sources),
        source=np.array(columns.source, np.int32),
        offset=np.array(columns.offset, np.int64),
        size=np.array(columns.size, np.int32),
        lengths=np.array(columns.lengths, np.int32),
        skipped=tuple(skipped),
        digest=_digest(sources, columns, keys),
        fingerprint=fingerprint,
    )
    _check_keys(corpus, keys)
    return corpus


def _digest(sources: Sequence[Listing | Shard], columns: _Columns, keys: NDArray[np.uint64]) -> str:
    digest = hashlib.sha256(keys.tobytes() + columns.lengths.tobytes())
    if any(isinstance(source, Shard) and not source.local for source in sources):
        digest.update(columns.source.tobytes())  # the order follows the shards that are fetched
    return digest.hexdigest()[:16]


def _check_keys(corpus: Corpus, keys: NDArray[np.uint64]) -> None:
    """Refuse keys that come twice, by their hashes; where two are equal, the keys are compared."""
    order = np.argsort(keys, kind="stable")
    twice = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    for place in twice:
        key = corpus.name(int(order[place]))[0]
        if corpus.name(int(order[place + 1]))[0] == key:
            raise come_twice(len(twice), key)


def _told(record: Record) -> int | None:
    """Return the samples that a list says a recording has; None if it does not say it."""
    seconds = record.duration if not record.start else None
    if record.end is not None:
        seconds = record.end - record.start
    return None if seconds is None else round(seconds * SAMPLE_RATE)


def _header(record: Record) -> tuple[int, str]:
    """Return the samples that a file's header says, and why there are none."""
    try:
        return record.num_samples(), ""
    except (OSError, ValueError) as error:
        return 0, str(error)


def _load(path: Path, fingerprint: str) -> Corpus | None:
    """Read an index; None if it is of something else, or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata()
            if metadata["fingerprint"] != fingerprint:
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        logger.info("%s is not used: %s", path, error)
        return None
    lines, skipped = (arrays.pop(name).tobytes() for name in ("lines", "skipped"))
    rows = json.loads(metadata["sources"])
    sources = tuple(
        Shard(**row) if "name" in row else Listing(**row, lines=b"" if row["path"] else lines)
        for row in rows
    )
    return Corpus(
        sources=sources,
        skipped=tuple(Skipped(*row) for row in json.loads(skipped)),
        digest=metadata["digest"],
        fingerprint=fingerprint,
        **arrays,
    )
