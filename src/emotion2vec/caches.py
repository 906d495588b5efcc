"""Where things are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """EMOTION2VEC_CACHE, or `~/.cache/emotion2vec`; made by whoever writes into it."""
    return Path(
        os.environ.get("EMOTION2VEC_CACHE") or Path.home() / ".cache" / "emotion2vec"
    ).expanduser()
