"""What the commands that recognize share: which model, and what is said of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emotion2vec.recognize import Recognizer

DEFAULT_MODEL = (
    "model: mini, small and learned from acted speech (docs/mini.md); --model plus-large fetches "
    "the published one, 2 GB."
)
"""Said where no model is named."""


def names_in(text: str | None) -> list[str] | None:
    """The names between commas, or None.

    >>> names_in("happy, sad")
    ['happy', 'sad']
    """
    return None if text is None else [name.strip() for name in text.split(",")]


def open_recognizer(
    model: str | None, *, labels: str | None = None, quiet: bool = False, **options: Any
) -> Recognizer:
    """The recognizer that a command was asked for; without a name mini, which is then said.

    Args:
        model: folder, name or .onnx file
        labels: with commas between, as typed
        quiet: say nothing
        options: as `Recognizer`
    """
    from emotion2vec.published.hub import MINI
    from emotion2vec.recognize import Recognizer

    if model is None and not quiet:
        print(DEFAULT_MODEL, file=sys.stderr)
    return Recognizer.from_pretrained(model or MINI, labels=names_in(labels), **options)
