"""What commands share in how they answer: exit codes and formats."""

from __future__ import annotations

from typing import Literal

SOME_FAILED = 3
"""Exit code of a run that finished but had to leave some recordings out."""

Format = Literal["table", "json"]
