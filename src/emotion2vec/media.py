"""Sound in what soundfile does not read (m4a, mp4, webm, ...), by PyAV: the extra `media`.

Letters: S samples, at the stream's own rate. A sample's number is its place in what the whole
stream decodes to, so that a part is exactly that part of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

MEDIA_SUFFIXES = (
    *(".m4a", ".m4b", ".mp4", ".mov", ".3gp", ".aac"),
    *(".webm", ".mkv", ".mka", ".wma", ".amr"),
)

DEMUXERS = (
    "mov,matroska,webm,asf,avi,flv,mpegts,mpeg,aac,ac3,eac3,amr,amrnb,amrwb,"
    "mp3,ogg,wav,w64,caf,aiff,ape,wv,tta"
)
"""What FFmpeg may take a file for: no playlists, which can name other files and addresses."""

PREROLL_SECONDS = 0.5
"""Decoded before a part and dropped: codecs lean on what came before (Opus: 0.08 s, MP3: 0.3 s)."""

BLOCK_SECONDS = 60

_GAP_SECONDS = (0.1, 600.0)
"""Holes between timestamps that are silence; under it they are rounding, over it broken."""


class MediaFile:
    """The first audio stream of a container, its channels averaged; a context manager.

    Raises:
        ValueError: if the extra is missing, or the file is damaged or has no sound

    >>> import io
    >>> MediaFile(io.BytesIO(b"Dear diary"), "diary.m4a")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: diary.m4a cannot be decoded as audio (...
    """

    def __init__(self, source: str | Path | IO[bytes], name: str) -> None:
        try:
            import av
        except ImportError as error:
            raise ValueError(
                f"{name} cannot be decoded as audio (soundfile does not know its kind); m4a, mp4, "
                "webm and the like need pip install 'emotion2vec[media]', anything else is "
                "damaged, convert it to wav or flac."
            ) from error
        self._av, self.name = av, name
        with ExitStack() as closing:
            if isinstance(source, str | Path):  # opened here: FFmpeg would read it as an address
                source = closing.enter_context(open(source, "rb"))
            self._file = source
            self._container: Any = None
            closing.callback(self._close)
            self._open()
            self._closing = closing.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.close()

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()

    def _open(self) -> None:
        """Begin at the beginning; learn rate and first timestamp from what is decoded."""
        with self._refusals():
            self._close()
            self._file.seek(0)
            self._container = self._av.open(
                self._file,
                container_options={"format_whitelist": DEMUXERS},
                metadata_errors="replace",
            )
            if not self._container.streams.audio:
                raise ValueError(f"{self.name} has no sound; give the file that the audio is in.")
            self._stream = self._container.streams.audio[0]
            for other in self._container.streams:
                if other.index != self._stream.index:
                    other.discard = self._av.stream.Discard.all  # its pictures, say
            frames = self._container.decode(self._stream)
            first = list(islice(frames, 2))
        if not first:
            raise ValueError(f"{self.name} has an audio stream without sound; record it again.")
        self.samplerate = int(first[0].sample_rate)  # HE-AAC's header gives half of it
        self._origin = first[0].pts or 0
        # Encoders pad the front; what is left of that frame shifts the grid of all the others.
        self._grid = max(frame.samples for frame in first)
        self._shift = first[0].samples % self._grid
        self._fresh: Iterator[Any] | None = chain(first, frames)

    @property
    def frames(self) -> int:
        """Samples in the stream: from the header of mp4 and its kin, else from its last second."""
        if self._stated is not None:
            return self._stated
        seconds = (self._container.duration or 0) / self._av.time_base
        late = max(0, int((seconds - 1) * self.samplerate))
        return max((number + len(mono) for number, mono in self._numbered(late)), default=0)

    @property
    def _stated(self) -> int | None:
        """What mp4 and its kin say of their audio's length: exact, the rest is padding."""
        stream = self._stream
        if "mov" not in self._container.format.name.split(",") or not stream.duration:
            return None
        return round(stream.duration * stream.time_base * self.samplerate)

    def blocks(
        self, first: int, last: int | None, seconds: float = BLOCK_SECONDS
    ) -> Iterator[NDArray[np.float32]]:
        """Samples `first` to `last` (None for all), (S,) a time, about `seconds` each.

        Raises:
            ValueError: if the stream ends before `first`, or is damaged
        """
        ends = [end for end in (last, self._stated) if end is not None]
        stop = min(ends, default=None)
        parts: list[NDArray[np.float32]] = []
        held = done = 0
        for number, mono in self._numbered(first):
            part = mono[max(0, first - number) : None if stop is None else max(0, stop - number)]
            if len(part):
                parts.append(part)
                held += len(part)
            if held >= seconds * self.samplerate:
                yield np.concatenate(parts)
                done, held, parts = done + held, 0, []
            if stop is not None and number + len(mono) >= stop:
                break
        if parts:
            yield np.concatenate(parts)
        elif first and not done:
            raise ValueError(
                f"{self.name} ends before {first / self.samplerate:g} s, where the part asked for "
                "begins; check start."
            )

    def _numbered(self, first: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Frames from `first` or a little before on, holes filled: number of a sample, (S,)."""
        to_float = self._av.AudioResampler(format="fltp")
        least, most = (seconds * self.samplerate for seconds in _GAP_SECONDS)
        expected: int | None = None
        with self._refusals():
            for frame in self._frames_from(first):
                number = self._number(frame, expected or 0)
                if expected is not None and not least < number - expected < most:
                    number = expected
                while expected is not None and number > expected:  # a second a time: it may be long
                    hole = min(number - expected, self.samplerate)
                    yield expected, np.zeros(hole, np.float32)
                    expected += hole
                if frame.sample_rate != self.samplerate:
                    raise ValueError(
                        f"{self.name} changes its sampling rate from {self.samplerate} to "
                        f"{frame.sample_rate} Hz on its way; write it again at one rate."
                    )
                for part in to_float.resample(frame):
                    yield number, part.to_ndarray().mean(axis=0)  # (channels, S) -> (S,)
                expected = number + frame.samples

    def _frames_from(self, first: int) -> Iterator[Any]:
        """Decoded frames from at or before `first` on; found by seeking where that can be done."""
        seconds = first / self.samplerate - PREROLL_SECONDS
        if seconds > PREROLL_SECONDS:
            self._fresh = None
            target = self._origin + int(seconds / self._stream.time_base)
            try:
                self._container.seek(target, stream=self._stream)
                frames = self._container.decode(self._stream)
                landed = next(frames, None)
            except self._av.FFmpegError:  # it cannot seek: from the beginning, then
                landed = None
            if landed is not None and landed.pts is not None and self._number(landed, 0) <= first:
                yield from chain([landed], frames)
                return
        if self._fresh is None:
            self._open()
        frames, self._fresh = self._fresh, None
        assert frames is not None
        yield from frames

    def _number(self, frame: Any, otherwise: int) -> int:
        """Place of the frame's first sample in the whole, by its timestamp."""
        if frame.pts is None:
            return otherwise
        samples_a_tick = float(self._stream.time_base * self.samplerate)
        number = round((frame.pts - self._origin) * samples_a_tick)
        if number <= 0:
            return 0
        # Matroska counts milliseconds; frames of one size say which sample is meant.
        exact = self._shift + round((number - self._shift) / self._grid) * self._grid
        return exact if abs(exact - number) <= max(1.0, samples_a_tick) else number

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Say FFmpeg's errors in one sentence."""
        try:
            yield
        except self._av.FFmpegError as error:
            raise ValueError(
                f"{self.name} cannot be decoded as audio ({error.strerror}); it is damaged or of a "
                "kind that neither soundfile nor FFmpeg knows, convert it to wav or flac."
            ) from error
