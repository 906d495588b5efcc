"""Addresses as fsspec knows them (s3://bucket/a.wav, memory://a.wav): what is there, as files."""

from __future__ import annotations

import glob
import io
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

BLOCK_BYTES = 4 * 2**20
"""Fetched at a time: a short recording whole, of a long one its header or the part asked for."""

Source = str | Path | bytes | IO[bytes]

_SCHEME = re.compile(r"([a-z][\w+.-]+::)*[a-z][\w+.-]+://", re.IGNORECASE)


def is_address(source: str | Path) -> bool:
    """Whether this is an address for fsspec, and no path.

    >>> is_address("s3://bucket/shards"), is_address("shards"), is_address("a/b://c")
    (True, False, False)
    """
    return isinstance(source, str) and _SCHEME.match(source) is not None


def without_scheme(address: str) -> str:
    """What follows the scheme; of a path, itself.

    >>> without_scheme("s3://bucket/a.wav"), without_scheme("clips/a.wav")
    ('bucket/a.wav', 'clips/a.wav')
    """
    found = _SCHEME.match(address)
    return address[found.end() :] if found else address


def placed(path: str, folder: str | Path) -> str:
    """A path or address as something in `folder` means it: relative paths start there.

    >>> placed("a.wav", "clips"), placed("a.wav", "s3://bucket/clips")
    ('clips/a.wav', 's3://bucket/clips/a.wav')
    >>> placed("memory://a.wav", "clips"), placed("/b/a.wav", "s3://bucket")
    ('memory://a.wav', '/b/a.wav')
    """
    if is_address(path):
        return path
    if isinstance(folder, str) and is_address(folder):
        return path if Path(path).is_absolute() else f"{folder.rstrip('/')}/{path}"
    return str(folder / Path(path))


def open_folder(address: str | Path) -> tuple[Any, str]:
    """The file system of a folder or address, and the folder's path there.

    Raises:
        ImportError: if fsspec needs a library for it that is not installed
        ValueError: if fsspec does not know such addresses
    """
    import fsspec

    try:
        files, root = fsspec.core.url_to_fs(str(address))
    except ImportError as error:
        raise ImportError(
            f"{address} needs a library that is not installed ({error}); install it with pip."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{address} is no address that fsspec understands ({error}); check its beginning."
        ) from error
    return files, str(root).rstrip("/")


def is_local(files: Any) -> bool:
    """Whether files of this file system can be opened where they lie."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(files, LocalFileSystem)


@contextmanager
def reachable(source: Source) -> Iterator[Source]:
    """What a decoder can read: the file at an address, as `open_address`; anything else as it is.

    >>> with reachable(b"bytes") as there:
    ...     there
    b'bytes'
    """
    if isinstance(source, str) and is_address(source):
        with open_address(source) as file:
            yield file
    else:
        yield source


@contextmanager
def open_address(address: str) -> Iterator[Path | IO[bytes]]:
    """The file at an address: its path where it lies on this machine, else an open binary file.

    Decoders take a read that fails for the end of the file; so the block ends with the error of
    the first one, whatever was made of it.

    Raises:
        FileNotFoundError: if nothing is there
        OSError: if it cannot be read, or cannot be read to its end
        ValueError: if it is empty, or fsspec lacks what such addresses need

    >>> import fsspec
    >>> _ = fsspec.filesystem("memory").pipe("/notes.txt", b"whole")
    >>> with open_address("memory://notes.txt") as file:
    ...     file.read()
    b'whole'
    """
    files, handle = _opened(address)  # the former, too: a zip closes its files when it goes
    if isinstance(handle, Path):
        yield handle
        return
    with handle:
        if getattr(handle, "size", None) == 0:
            raise ValueError(f"{address} is empty (0 bytes); copy or download it again.")
        watched = _Watched(handle, files)
        try:
            # RawIOBase is a binary file in all but its type.
            yield cast(IO[bytes], watched)
        finally:
            if watched.error:
                raise _unreadable(address, watched.error) from watched.error


def _opened(address: str) -> tuple[Any, Any]:
    """Return the file system, and the path of what is on this machine, else a file of fsspec's."""
    try:
        files, path = open_folder(address)
        if is_local(files):
            return files, Path(path)
        return files, files.open(path, "rb", block_size=BLOCK_BYTES)
    except ImportError as error:  # of one recording among many, as is what PyAV would be needed for
        raise ValueError(str(error)) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{address} is not there; check the address.") from error
    except ValueError:
        raise
    except Exception as error:  # each kind of address has errors of its own
        raise _unreadable(address, error) from error


def _unreadable(address: str, error: Exception) -> OSError:
    return OSError(
        f"{address} cannot be read ({type(error).__name__}: {error}); "
        "check the address, what may read it, and the network."
    )


class _Watched(io.RawIOBase):
    """A file that keeps the first error of a read, for those who call it from C and lose it."""

    def __init__(self, file: Any, files: Any) -> None:
        self.file, self._files = file, files
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self.file.seekable())

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._kept(lambda: int(self.file.seek(offset, whence)))

    def tell(self) -> int:
        return self._kept(lambda: int(self.file.tell()))

    def _kept(self, ask: Callable[[], int]) -> int:
        try:
            return ask()
        except Exception as error:  # as in `readinto`
            self.error = self.error or error
            return 0

    def readinto(self, buffer: Any) -> int:
        try:
            data = self.file.read(len(buffer))
        except Exception as error:  # each kind of address has errors of its own
            self.error = self.error or error
            return 0
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def fetched(address: str, siblings: Sequence[str] = ()) -> Iterator[Path]:
    """A copy of a file, under its own name; beside it those of its siblings that there are.

    Raises:
        ImportError, ValueError: as `open_folder`
        OSError: if it cannot be read
    """
    files, path = open_folder(address)
    folder, _, name = path.rpartition("/")
    with tempfile.TemporaryDirectory() as copies:
        try:
            files.get_file(path, f"{copies}/{name}")
            for sibling in siblings:
                if files.exists(f"{folder}/{sibling}"):
                    files.get_file(f"{folder}/{sibling}", f"{copies}/{sibling}")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{address} is not there; check the address.") from error
        except Exception as error:  # each kind of address has errors of its own
            raise _unreadable(address, error) from error
        yield Path(copies) / name


def find_files(address: str, suffixes: Sequence[str]) -> tuple[str, list[str]]:
    """The folder that an address stands for, and the files that it names, sorted.

    Args:
        address: of a file; of a folder, searched deeply; or a glob
        suffixes: what files in folders must end with, in lower case

    Raises:
        ImportError, ValueError: as `open_folder`
        OSError: if the place cannot be read

    >>> import fsspec
    >>> fsspec.filesystem("memory").pipe({"/calls/a.wav": b"1", "/calls/b/c.wav": b"2"})
    >>> find_files("memory://calls", [".wav"])
    ('memory:///calls', ['memory:///calls/a.wav', 'memory:///calls/b/c.wav'])
    """
    files, path = open_folder(address)
    try:
        if files.isfile(path):
            return address.rpartition("/")[0], [address]
        if glob.has_magic(path):
            root = path[: re.search(r"[*?[]", path).start()].rpartition("/")[0]  # type: ignore[union-attr]
            found = [name for name in files.glob(path) if files.isfile(name)]
        else:
            root = path
            found = [name for name in files.find(path) if name.lower().endswith(tuple(suffixes))]
    except FileNotFoundError:
        root, found = path, []
    except Exception as error:  # each kind of address has errors of its own
        raise _unreadable(address, error) from error
    if "::" in address and found:
        raise ValueError(
            f"{address} goes through several file systems, whose files have no addresses of their "
            "own that could be made up here; give a list of addresses."
        )
    return files.unstrip_protocol(root), sorted(map(files.unstrip_protocol, found))
