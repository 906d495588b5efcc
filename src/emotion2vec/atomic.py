"""Files and folders that are whole or not there: write under a temporary name, then rename."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(target: str | Path) -> Iterator[Path]:
    """A temporary path beside `target`, which takes its place when the block ends well.

    If the block fails, what it wrote is removed and what stood at `target` before stays. After a
    kill the temporary file stays until `target` is written again: its name is always the same.

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
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {target}: {error.strerror or error}; what was there before is "
            "untouched, free space or choose another place",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the error on its way says what matters
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: str | Path, *, mark: str) -> Iterator[Path]:
    """A temporary folder beside `target`, which takes its place when the block ends well.

    If the block fails, what it wrote is removed and what stood at `target` before stays. A kill
    leaves the temporary folder, `.NAME.*` beside `target`, and a kill between the two renames the
    former content in it.

    Args:
        target: the folder to make; what stands there is replaced if it is empty or holds `mark`
        mark: name of a file by which a folder is known to be of the same kind

    Raises:
        FileExistsError: if something else stands at `target`; nothing is written then
        OSError: if the place cannot be written or the disk is full; the message names `target`

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_folder(folder / "a", mark="b.txt") as path:
    ...     _ = (path / "b.txt").write_text("whole")
    >>> [file.name for file in folder.rglob("*")]
    ['a', 'b.txt']
    """
    target = Path(target)
    if target.exists() and not (
        target.is_dir() and (_is_empty(target) or (target / mark).exists())
    ):
        raise FileExistsError(
            f"{target} exists and is neither empty nor has a {mark}; choose another place."
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            made, old = temporary / "new", temporary / "old"
            made.mkdir()
            yield made
            if target.exists():
                os.replace(target, old)
            os.replace(made, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {target}: {error.strerror or error}; free space or choose another place",
        ) from error


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None
