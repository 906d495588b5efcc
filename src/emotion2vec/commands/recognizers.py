"""What the commands that recognize share: which model, and what is said of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cyclopts import Parameter

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


@Parameter(name="*", group="How sound becomes segments")
@dataclass(frozen=True)
class Hearing:
    """`StreamSettings` as flags, with its defaults; a test holds them equal."""

    window: float = 2.0
    """Seconds that the model hears at a time."""
    hop: float = 0.5
    """Seconds from window to window."""
    switch: float = 0.05
    """Probability that the emotion changes within a hop; less is smoother."""
    lag: float = 1.0
    """Seconds to look ahead before a label is decided."""
    pause: float = 0.3
    """Seconds of silence that end speech."""
    threshold: float = 0.5
    """Probability from which sound counts as speech."""
    whole: bool = False
    """Label everything; do not look for speech."""

    def settings(self) -> StreamSettings:
        """The settings of a stream.

        Raises:
            ValueError: if a number is out of its range
        """
        from emotion2vec.stream import StreamSettings

        return StreamSettings(
            window_seconds=self.window,
            hop_seconds=self.hop,
            switch=self.switch,
            lag_seconds=self.lag,
            pause_seconds=self.pause,
            threshold=self.threshold,
            detect_speech=not self.whole,
        )


DEFAULT_HEARING = Hearing()
