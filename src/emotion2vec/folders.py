"""A folder, here or at any fsspec address, whose files are whole or not there."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from emotion2vec.addresses import is_address, is_local, open_folder
from emotion2vec.atomic import atomic_path

logger = logging.getLogger(__name__)

WHOLE_WHEN_PUT = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "oci", "hf"))
"""Object stores, where a file is seen when its last byte has come; moving it would copy it."""

ATTEMPTS = 4
"""To put a file at an address, with 1, 2 and 4 seconds between them."""

_BLOCK_BYTES = 2**18  # of a table's file, its end and single columns are read


class Folder:
    """A folder's files by name.

    Args:
        place: a path, or an address that fsspec knows; made when the first file is written

    Raises:
        ImportError: if fsspec needs a library for the address that is not installed
        ValueError: if fsspec does not know such addresses

    >>> folder = Folder("memory://results")
    >>> with folder.writing("a.txt") as path:
    ...     _ = path.write_text("whole")
    >>> folder.has("a.txt"), folder.names(".txt"), folder.read("a.txt")
    (True, ['a.txt'], b'whole')
    """

    def __init__(self, place: str | Path) -> None:
        self.name = str(place)
        self.local: Path | None = None
        if not is_address(place):
            self.local = Path(place)
            return
        self._files, self._root = open_folder(place)
        if is_local(self._files):
            self.local = Path(self._root)
        self._files.invalidate_cache()

    def __str__(self) -> str:
        return self.name

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        if self.local is not None:
            return (self.local / name).is_file()
        return bool(self._files.isfile(f"{self._root}/{name}"))

    def names(self, suffix: str) -> list[str]:
        """The names of the files that end with `suffix`, sorted; none where there is no folder."""
        if self.local is not None:
            found = [path.name for path in self.local.glob(f"*{suffix}")]
        else:
            try:
                found = [p.rpartition("/")[2] for p in self._files.ls(self._root, detail=False)]
            except FileNotFoundError:
                found = []
        return sorted(name for name in found if name.endswith(suffix) and not name.startswith("."))

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """The file, to be read; only what is read of it is fetched.

        Raises:
            OSError: if it cannot be read
        """
        if self.local is not None:
            with (self.local / name).open("rb") as file:
                yield file
            return
        with self._files.open(f"{self._root}/{name}", "rb", block_size=_BLOCK_BYTES) as file:
            yield file

    def read(self, name: str) -> bytes:
        """All that is in the file; errors as `open`."""
        with self.open(name) as file:
            return file.read()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one run, where it is on this machine; addresses know no locks.

        Raises:
            OSError: if another run holds it
        """
        if self.local is None:
            yield
            return
        from filelock import FileLock, Timeout

        is_new = not self.local.exists()
        try:
            self.local.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror
            raise OSError(f"cannot write {self.name} ({reason}); choose another.") from error
        lock = FileLock(self.local / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise OSError(
                f"another run is writing to {self.name}; wait for it, or choose another folder."
            ) from None
        try:
            yield
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: nobody waits for it
            lock.release()
            if is_new:
                with suppress(OSError):  # nothing was written
                    self.local.rmdir()

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path; what is written there is in the folder, whole, when the block ends well.

        Raises:
            OSError: if the place cannot be written; what was there before stays
        """
        if self.local is not None:
            with atomic_path(self.local / name) as path:
                yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            yield path
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    self._put(path, name)
                    return
                except Exception as error:  # each kind of address has errors of its own
                    if attempt == ATTEMPTS or isinstance(error, PermissionError):
                        raise OSError(
                            f"cannot write {self.name}/{name} ({type(error).__name__}: {error}); "
                            "check the address, who may write there, and the network."
                        ) from error
                    logger.warning("%s/%s: writing again after %s", self.name, name, error)
                    time.sleep(2 ** (attempt - 1))

    def _put(self, path: Path, name: str) -> None:
        self._files.makedirs(self._root, exist_ok=True)
        target, kinds = f"{self._root}/{name}", self._files.protocol
        if WHOLE_WHEN_PUT.intersection((kinds,) if isinstance(kinds, str) else kinds):
            self._files.put_file(str(path), target)
            return
        temporary = f"{self._root}/.{name}.tmp"
        self._files.put_file(str(path), temporary)
        self._files.mv(temporary, target)
        if self._files.exists(temporary):  # some refuse a name that is taken, and do not say so
            self._files.rm_file(target)
            self._files.mv(temporary, target)
