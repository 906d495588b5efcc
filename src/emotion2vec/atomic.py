"""Files that are either whole or not there: write under a temporary name, then rename."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """A temporary path beside `target`, which takes its place when the block ends well.

    The block may write a file or make a folder there. If it fails, what it wrote is removed and
    what stood at `target` before stays.

    Raises:
        OSError: if the place cannot be written or the disk is full; the message names `target`.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "a" / "b.txt") as path:
    ...     _ = path.write_text("whole")
    >>> (folder / "a" / "b.txt").read_text()
    'whole'
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        yield temporary
        _replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(
            error.errno,
            f"cannot write {target}: {reason}; what was there before is untouched, "
            "free space or choose another place",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the error on its way says what matters
            _remove(temporary)


def _replace(temporary: Path, target: Path) -> None:
    if target.is_dir() and not target.is_symlink():
        # A folder cannot be renamed over another; the old one steps aside for the moment.
        aside = target.with_name(f".{target.name}.{os.getpid()}.old")
        os.replace(target, aside)
        os.replace(temporary, target)
        _remove(aside)
    else:
        os.replace(temporary, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
