"""`emotion2vec listen`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from emotion2vec.commands.output import Format
from emotion2vec.commands.recognizers import DEFAULT_HEARING, Hearing, open_recognizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from emotion2vec.segments import Segment
    from emotion2vec.stream import Stream

    Chunk = NDArray[np.int16] | NDArray[np.float32]

CHUNK_SECONDS = 0.1


def listen(
    source: str = "microphone",
    /,
    *,
    model: str | None = None,
    rate: int = 16000,
    seconds: float | None = None,
    labels: str | None = None,
    abstain: float = 0.0,
    language: Literal["en", "zh", "both"] = "en",
    hearing: Hearing = DEFAULT_HEARING,
    format: Format = "table",
    device: str | None = None,
    quiet: bool = False,
) -> int:
    """Say which emotion is heard, while it is heard: from a microphone, or from another program.

    emotion2vec listen

    ffmpeg -loglevel error -i talk.mp3 -f s16le -ac 1 -ar 16000 - | emotion2vec listen -

    A line a segment, as soon as it is settled; Ctrl-C ends it, and settles what is left.

    Parameters
    ----------
    source
        "microphone", its number or a part of its name; or - for standard input, raw signed 16 bit
        little endian samples, one channel.
    model
        As in emotion2vec recognize.
    rate
        Samples a second of the microphone or of standard input.
    seconds
        Stop after so many; else at the end, or at Ctrl-C.
    labels
        Only these, with commas between.
    abstain
        Answer "unknown" where a segment's score is lower.
    language
        Of the labels.
    format
        "json" is one object a segment.
    device
        Where to compute.
    quiet
        Do not show what is heard at the moment.
    """
    from emotion2vec.stream import Stream

    if not 1000 <= rate <= 1_000_000:
        raise ValueError(f"--rate is {rate}; sound has 1000 to 1,000,000 samples a second.")
    if Path(source).is_file():
        raise ValueError(f"{source} is a file; emotion2vec timeline {source} reads it.")
    settings = hearing.settings()
    recognizer = open_recognizer(
        model, labels=labels, quiet=quiet, abstain=abstain, language=language, device=device
    )
    stream = Stream(recognizer, settings, sampling_rate=rate)
    shows = not quiet and sys.stderr.isatty()
    chunks: Iterator[Chunk] = (
        _from_input(rate) if source in ("-", "/dev/stdin") else _from_microphone(source, rate)
    )
    heard = 0
    with _Ending() as ending:
        while (chunk := ending.next_of(chunks)) is not None:
            _print(stream.push(chunk), format, clear=shows)
            heard += len(chunk)
            if shows:
                print(f"\r{_now(stream)}", end="", file=sys.stderr, flush=True)
            if seconds is not None and heard >= seconds * rate:
                break
    if not heard and not ending.asked:
        raise ValueError("no samples came; check the program before the pipe.")
    _print(stream.finish(), format, clear=shows)
    return 0


class _Ending:
    """Ctrl-C, heard between chunks: what is being computed is finished first."""

    def __init__(self) -> None:
        self.asked = self.waiting = False

    def __enter__(self) -> _Ending:
        self.before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self.before)

    def _hear(self, number: int, frame: object) -> None:
        self.asked = True
        if self.waiting:
            raise KeyboardInterrupt

    def next_of(self, chunks: Iterator[Chunk]) -> Chunk | None:
        """The next chunk; None at the end, or once Ctrl-C was pressed."""
        if self.asked:
            return None
        try:
            self.waiting = True
            return next(chunks, None)
        except KeyboardInterrupt:
            return None
        finally:
            self.waiting = False


def _from_input(rate: int) -> Iterator[NDArray[np.int16]]:
    """Chunks of standard input, as they come."""
    import numpy as np

    size = 2 * round(CHUNK_SECONDS * rate)
    rest = b""
    while data := os.read(sys.stdin.fileno(), size):  # what is there, not more
        data = rest + data
        whole = len(data) // 2 * 2
        rest = data[whole:]
        yield np.frombuffer(data[:whole], "<i2").astype(np.int16)


def _from_microphone(name: str, rate: int) -> Iterator[NDArray[np.float32]]:
    """Chunks of a microphone, until the iterator is closed."""
    import queue

    try:
        import sounddevice
    except OSError as error:  # it is there, PortAudio is not
        raise OSError(
            f"the microphone cannot be opened ({error}); install PortAudio (libportaudio2), or "
            "send samples to emotion2vec listen -."
        ) from error
    waiting: queue.SimpleQueue[NDArray[np.float32]] = queue.SimpleQueue()

    def hear(block: NDArray[np.float32], frames: int, time: Any, status: Any) -> None:
        waiting.put(block[:, 0].copy())

    device = None if name == "microphone" else int(name) if name.isdigit() else name
    try:
        microphone = sounddevice.InputStream(
            samplerate=rate,
            blocksize=round(CHUNK_SECONDS * rate),
            device=device,
            channels=1,
            dtype="float32",
            callback=hear,
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise OSError(
            f"the microphone {name!r} cannot be opened ({error}); python -m sounddevice lists what "
            "is there."
        ) from error
    with microphone:
        while True:
            yield waiting.get()


def _now(stream: Stream) -> str:
    scores = stream.latest
    if not stream.speaking or not scores:
        return f"{'(listening)':<40}"
    best = max(scores, key=scores.__getitem__)
    bar = "#" * round(20 * scores[best])
    return f"{best:>12} {scores[best]:4.2f} {bar:<22}"


def _print(segments: list[Segment], format: Format, *, clear: bool) -> None:
    for s in segments:
        if clear:
            print(f"\r{'':<40}\r", end="", file=sys.stderr, flush=True)
        if format == "json":
            print(json.dumps(s.to_dict(), ensure_ascii=False), flush=True)
        else:
            print(f"{s.start:8.2f} {s.end:8.2f}  {s.label:<12} {s.score:.2f}", flush=True)
