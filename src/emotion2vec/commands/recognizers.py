"""What the commands that recognize share: which model, and what is said of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from emotion2vec.commands.output import names_in

if TYPE_CHECKING:
    from emotion2vec.recognize import Recognizer
    from emotion2vec.stream import StreamSettings

DEFAULT_MODEL = (
    "model: mini, small and learned from acted speech (docs/mini.md); --model plus-large fetches "
    "the published one, 2 GB."
)
"""Said where no model is named."""


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
    from emotion2vec.recognize import Recognizer

    if model is None and not quiet:
        print(DEFAULT_MODEL, file=sys.stderr)
    return Recognizer.from_pretrained(model, labels=names_in(labels), **options)


def stream_settings(
    window: float | None,
    hop: float | None,
    switch: float | None,
    lag: float | None,
    pause: float | None,
    threshold: float | None,
    *,
    detect_speech: bool = True,
) -> StreamSettings:
    """The settings of a stream, the defaults where nothing was typed."""
    from emotion2vec.stream import StreamSettings

    typed = {
        "window_seconds": window,
        "hop_seconds": hop,
        "switch": switch,
        "lag_seconds": lag,
        "pause_seconds": pause,
        "threshold": threshold,
    }
    given: dict[str, Any] = {name: value for name, value in typed.items() if value is not None}
    return StreamSettings(**given, detect_speech=detect_speech)
