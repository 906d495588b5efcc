"""Files that are either whole or not there: write under a temporary name, then rename."""

from __future__ import annotations

import contextlib
import os
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
