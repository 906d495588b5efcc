"""Recordings -> shards: tar files with sound at 16 kHz, and a list of what lies where beside each.

N recordings, S samples.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import re
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from emotion2vec.audio import SAMPLE_RATE, check_clip
from emotion2vec.corpus import Data, open_corpus
from emotion2vec.folders import Folder
from emotion2vec.manifest import Record
from emotion2vec.shards import Shard, find_shards, index_name

SETTINGS_NAME = "pack.json"
ERRORS_NAME = "errors.jsonl"
KINDS = ("flac", "wav")

_ORDER_SEED = 0
_TAR_BYTES = 2560  # of two headers, the record's fields and what fills up blocks


class PackSummary(NamedTuple):
    """What lies in the folder after `pack`."""

    shards: int
    recordings: int
    seconds: float
    failed: int
    """left out; errors.jsonl says why"""


class Encoded(NamedTuple):
    """A recording as it goes into a shard, or the reason why it does not."""

    data: bytes
    samples: int
    error: str = ""


def pack(
    data: Data,
    out: str | Path,
    *,
    shard_mb: float = 512.0,
    to: str = "flac",
    workers: int = 1,
    progress: bool = False,
) -> PackSummary:
    """Write recordings as shards into a folder or to an fsspec address.

    Recordings are mixed, always in the same way, so that each shard is like the whole. A shard is
    there when its list is; what is there is not made again, so that a killed run goes on, to the
    same bytes.

    Args:
        data: what to pack, as in `corpus.open_corpus`, but no shards
        out: folder or address
        shard_mb: size of a shard in 1e6 bytes, counted as if flac saved nothing
        to: "flac" or "wav", mono, 16 kHz, 16 bits
        workers: processes that decode and encode
        progress: show a bar

    Raises:
        OSError: if something cannot be written
        ValueError: if there is nothing to pack, or `out` holds shards of something else
    """
    if to not in KINDS or shard_mb <= 0 or workers < 1:
        raise ValueError(
            f"to is {to!r}, shard_mb {shard_mb} and workers {workers}; "
            f"choose one of {', '.join(KINDS)}, more than 0, and at least 1."
        )
    corpus = open_corpus(data, progress=progress)
    if any(isinstance(source, Shard) for source in corpus.sources):
        raise ValueError("shards cannot be packed again; give the recordings they were made of.")
    if not len(corpus):
        reason = corpus.skipped[0].error if corpus.skipped else "there are none"
        raise ValueError(f"no recording can be packed: {reason}")
    target = _Target(out)
    members = _deal(corpus.lengths, shard_mb)
    target.claim({"corpus": corpus.digest, "shard_mb": shard_mb, "to": to, "shards": len(members)})
    target.errors |= {item.key: item.error for item in corpus.skipped}
    with (
        tqdm(total=len(corpus), desc="packing", unit=" clips", disable=not progress) as bar,
        _mapping(workers) as run,
    ):
        for number, numbers in enumerate(members):
            name = f"shard-{number:06d}.tar"
            if target.has(index_name(name)):
                bar.update(len(numbers))
                continue
            records = [corpus.record(i) for i in numbers.tolist()]
            made = run(partial(encode, to=to), records)
            target.write(name, zip(records, _watched(made, bar), strict=True), to)
    target.write_errors()
    entries = [entry.samples for shard in find_shards(out) for entry in shard.entries()]
    seconds = sum(entries) / SAMPLE_RATE
    return PackSummary(len(members), len(entries), seconds, len(target.errors))


def encode(record: Record, *, to: str) -> Encoded:
    """A recording as the bytes of a file; what is 16 kHz, mono and 16 bits loses nothing."""
    import soundfile

    try:
        samples = record.load()
        # By 32768, as it was read: soundfile's own way from floats, by 32767, changes samples.
        pcm = np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype(np.int16)
        check_clip(pcm.astype(np.float32), record.path)
    except (OSError, ValueError) as error:
        return Encoded(b"", 0, str(error))
    file = io.BytesIO()
    soundfile.write(file, pcm, SAMPLE_RATE, format=to.upper(), subtype="PCM_16")
    return Encoded(file.getvalue(), len(pcm))


def stem_of(key: str) -> str:
    """What a recording's files in a shard are called, without suffix; no two keys alike.

    webdataset takes what follows the first dot for the suffix, and folders of tar files are plain.

    >>> stem_of("s1/clip-1"), stem_of("s1/clip.1")
    ('s1/clip-1', 's1/clip_1-c9361660')
    """
    if re.fullmatch(r"[\w-]+(/[\w-]+)*", key):
        return key
    mark = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return re.sub(r"/+", "/", re.sub(r"[^\w/-]", "_", key)).strip("/") + f"-{mark}"


def _deal(lengths: NDArray[np.int32], shard_mb: float) -> list[NDArray[np.int64]]:
    """Return the recordings of each shard, mixed; it follows from the lengths alone."""
    order = np.random.default_rng(_ORDER_SEED).permutation(len(lengths))
    ends = np.cumsum(lengths[order] * 2 + _TAR_BYTES)
    shard = (ends - 1) // max(int(shard_mb * 1e6), 1)
    return np.split(order, np.flatnonzero(np.diff(shard)) + 1)


Map = Callable[[Callable[[Record], Encoded], Sequence[Record]], Iterable[Encoded]]


@contextlib.contextmanager
def _mapping(workers: int) -> Iterator[Map]:
    """`map`, in so many processes."""
    if workers == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_end_with_parent) as pool:
        yield partial(pool.map, chunksize=8)


def _end_with_parent() -> None:
    """A pool's process would wait for ever where its parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _watched(items: Iterable[Encoded], bar: Any) -> Iterator[Encoded]:
    for item in items:
        bar.update()
        yield item


class _Target:
    """The folder or address that shards go to."""

    def __init__(self, out: str | Path) -> None:
        self.folder = Folder(out)
        self.errors: dict[str, str] = {}

    def has(self, name: str) -> bool:
        return self.folder.has(name)

    def claim(self, settings: dict[str, Any]) -> None:
        """Note what the folder will hold; refuse one that holds something else."""
        if self.has(SETTINGS_NAME):
            if json.loads(self.folder.read(SETTINGS_NAME)) != settings:
                raise ValueError(
                    f"{self.folder} holds shards of other recordings or made with other settings; "
                    f"choose another place ({SETTINGS_NAME} there says which)."
                )
            if self.has(ERRORS_NAME):
                rows = [json.loads(line) for line in self.folder.read(ERRORS_NAME).splitlines()]
                self.errors = {row["key"]: row["error"] for row in rows}
            return
        with self.folder.writing(SETTINGS_NAME) as path:
            path.write_text(json.dumps(settings) + "\n")

    def write(self, name: str, made: Iterable[tuple[Record, Encoded]], to: str) -> None:
        """Write a shard, then its errors, then its list, which says that it is whole."""
        rows = []
        with (
            self.folder.writing(name) as path,
            tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar,
        ):
            for record, (data, samples, error) in made:
                if error:
                    self.errors[record.key] = error
                    continue
                self.errors.pop(record.key, None)
                offset = _add(tar, f"{stem_of(record.key)}.{to}", data)
                _add(tar, f"{stem_of(record.key)}.json", _fields(record, samples))
                size = len(data)
                rows.append({"key": record.key, "offset": offset, "size": size, "samples": samples})
        self.write_errors()
        with self.folder.writing(index_name(name)) as path:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write_errors(self) -> None:
        """Write why recordings were left out, where some were."""
        if self.errors or self.has(ERRORS_NAME):
            rows = [{"key": key, "error": error} for key, error in self.errors.items()]
            with self.folder.writing(ERRORS_NAME) as path:
                path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a file that has neither time nor owner; return where in the tar file its bytes begin."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    tar.addfile(info, io.BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _fields(record: Record, samples: int) -> bytes:
    """Return what is known of a recording as JSON; not its path, which ends with the shard."""
    fields: dict[str, Any] = {"key": record.key, "duration": samples / SAMPLE_RATE}
    fields |= {"speaker": record.speaker, "language": record.language}
    fields["labels"] = dict(record.labels) or None
    return json.dumps({k: v for k, v in fields.items() if v is not None}).encode()
