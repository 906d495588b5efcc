"""The only door through which sound enters: any file, bytes or array -> mono float32 at 16 kHz.

S samples.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from emotion2vec.addresses import reachable
from emotion2vec.media import BLOCK_SECONDS, MEDIA_SUFFIXES, MediaFile
from emotion2vec.resampling import SAMPLE_RATE as SAMPLE_RATE
from emotion2vec.resampling import Resampler as Resampler
from emotion2vec.resampling import Waveform as Waveform
from emotion2vec.resampling import from_array, gather, resampled

MIN_SAMPLES = 400
"""25 ms at 16 kHz: what the first frame of a model sees."""

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf"),
    *MEDIA_SUFFIXES,
)
"""What folders are searched for; a file given by name may be called anything."""

_BLOCK_SAMPLES = 60 * SAMPLE_RATE

AudioSource = str | Path | bytes | IO[bytes] | NDArray[Any]


def load_audio(
    source: AudioSource,
    *,
    sampling_rate: int | None = None,
    start: float = 0.0,
    end: float | None = None,
    check: bool = True,
) -> Waveform:
    """The sound in `source`: (S,) float32, mono, 16 kHz; channels averaged, full scale is 1.

    Args:
        source: path, fsspec address (s3://bucket/a.wav), encoded bytes, open binary file, or an
            array (samples,) or (samples, channels): floats within [-1, 1], signed integers of full
            scale, or uint8 around 128, as in 8-bit wav
        sampling_rate: of an array, in Hz; files know their own
        start: where to begin, in seconds; of a file, only the part asked for is decoded
        end: where to stop, in seconds; None for the end
        check: refuse clips that no model can answer for: under 0.025 s, silent, not finite

    Raises:
        FileNotFoundError: if there is no such file
        OSError: if what is at an address cannot be read
        ValueError: if it is empty, damaged, no audio, too short, silent or not finite, if an
            array comes without its sampling rate, or an address needs what is not installed

    >>> tone = np.sin(np.arange(8000) / 8, dtype=np.float32)
    >>> load_audio(tone, sampling_rate=8000).shape
    (16000,)
    """
    name = str(source) if isinstance(source, str | Path) else f"the {_kind(source)} given"
    if (end is not None and end <= start) or start < 0:
        raise ValueError(f"{name}: the part from {start} s to {end} s is empty; swap or widen it.")
    if isinstance(source, np.ndarray):
        array, rate = from_array(source, sampling_rate)
        part = array[round(start * rate) : None if end is None else round(end * rate)]
        samples = gather([part], rate)
    else:
        with _decoding(source, name, start, end) as (blocks, rate):
            samples = gather(blocks, rate)
    if check:
        check_clip(samples, name)
    return samples


def check_clip(samples: Waveform, name: str) -> None:
    """Refuse a clip that no model can answer for.

    Raises:
        ValueError: that says what is wrong with the clip `name`

    >>> check_clip(np.zeros(16000, np.float32), "a.wav")
    Traceback (most recent call last):
    ...
    ValueError: a.wav is silent (every sample is 0); check the recording or leave it out.
    """
    if len(samples) < MIN_SAMPLES:
        raise ValueError(
            f"{name} is {len(samples) / SAMPLE_RATE:.3f} s long; the model needs at least "
            f"{MIN_SAMPLES / SAMPLE_RATE:.3f} s ({MIN_SAMPLES} samples at 16 kHz); leave it out."
        )
    low, high = samples.min(), samples.max()  # NaN if any sample is
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError(
            f"{name} has {int((~np.isfinite(samples)).sum())} samples that are NaN or infinite; "
            "write the file again from its source."
        )
    if low == high:
        raise ValueError(
            f"{name} is silent (every sample is {samples[0]:g}); "
            "check the recording or leave it out."
        )


def normalize(samples: Waveform) -> Waveform:
    """The clip with zero mean and unit variance: (S,) -> (S,).

    Computed over the whole clip, unpadded, with an eps of 1e-5 on the variance. Source: the
    reference's `F.layer_norm(waveform, waveform.shape)`.

    >>> clip = normalize(np.array([1.0, 3.0], np.float32))
    >>> [round(float(sample), 3) for sample in clip]
    [-1.0, 1.0]
    """
    # In float64, block by block: a copy of an hour in float64 alone would take 460 MB.
    starts = range(0, len(samples), _BLOCK_SAMPLES)
    blocks = [samples[i : i + _BLOCK_SAMPLES] for i in starts]
    total = max(len(samples), 1)
    mean = sum(block.sum(dtype=np.float64) for block in blocks) / total
    squares = sum(np.square(block - mean, dtype=np.float64).sum() for block in blocks)
    scale = 1 / np.sqrt(squares / total + 1e-5)
    normalized = np.empty(len(samples), np.float32)
    for i, block in zip(starts, blocks, strict=True):
        normalized[i : i + len(block)] = (block - mean) * scale
    return normalized


def pad_clips(clips: list[Waveform]) -> tuple[Waveform, NDArray[np.bool_]]:
    """Clips side by side, zeros behind the shorter ones: (B, S) and (B, S), True at real samples.

    >>> batch, mask = pad_clips([np.ones(3, np.float32), np.ones(2, np.float32)])
    >>> mask.tolist()
    [[True, True, True], [True, True, False]]
    """
    lengths = np.array([len(clip) for clip in clips])
    batch = np.zeros((len(clips), int(lengths.max())), dtype=np.float32)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    return batch, np.arange(batch.shape[1]) < lengths[:, None]


def num_samples(path: str | Path, *, start: float = 0.0, end: float | None = None) -> int:
    """Samples that the file, or its part, will have at 16 kHz.

    From the header; of a container that does not say it, from its last second or from decoding.

    Raises:
        FileNotFoundError: if there is no such file
        ValueError: if it is empty, damaged, no audio, or ends before the part

    >>> import soundfile, tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.wav"
    >>> soundfile.write(file, np.zeros(44100), 44100)
    >>> num_samples(file, start=0.5)
    8000
    """
    with reachable(path) as there, _open(there, str(path)) as file:
        first, last = _part(file.frames, file.samplerate, str(path), start, end)
        return int((last - first) * SAMPLE_RATE / file.samplerate + 0.5)  # as soxr counts


def _kind(source: object) -> str:
    return {np.ndarray: "array", bytes: "bytes"}.get(type(source), "file object")


def _check_file(path: Path, name: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{name} is not a file; check the path.")
    if path.stat().st_size == 0:
        raise ValueError(f"{name} is empty (0 bytes); copy or download it again.")


def _not_audio(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"{name} cannot be decoded as audio ({error}); "
        "it is damaged or of a kind soundfile does not know, convert it to wav or flac."
    )


def _check_rate(file: Any, name: str) -> None:
    if not 1000 <= file.samplerate <= 1_000_000:
        raise ValueError(
            f"{name} says it has {file.samplerate} samples a second; "
            "sound has 1000 to 1,000,000, write the file again."
        )


def _check_header(file: Any, name: str) -> None:
    """Refuse headers that promise more than a recording can have."""
    _check_rate(file, name)
    if not 0 <= file.frames < 2**40:  # what an encoder writes that does not know the end
        raise ValueError(
            f"{name} does not say how long it is; decode and write it again, as wav or flac."
        )


def _open(source: str | Path | bytes | IO[bytes], name: str) -> Any:
    """Return a context manager with `samplerate` and `frames`: a SoundFile or a MediaFile."""
    import soundfile

    handle: Any = source
    if isinstance(source, str | Path):
        _check_file(Path(source), name)
        handle = os.fsencode(source)  # names that are no UTF-8 are names, too
    elif isinstance(source, bytes):
        handle = io.BytesIO(source)
    elif not source.seekable():  # a pipe: both decoders want to look back
        handle = io.BytesIO(source.read())
    try:
        file = soundfile.SoundFile(handle)
    except (soundfile.LibsndfileError, TypeError):  # TypeError: headerless .raw
        file = MediaFile(source if isinstance(source, str | Path) else handle, name)
        _check_rate(file, name)
        return file
    _check_header(file, name)
    return file


def _part(frames: int, rate: int, name: str, start: float, end: float | None) -> tuple[int, int]:
    """Return the first sample of the part asked for, and the one behind its last."""
    first = round(start * rate)
    if first and first >= frames:
        raise ValueError(
            f"{name} is {frames / rate:.3f} s long, but the part asked for begins at {start} s; "
            "check start."
        )
    return first, frames if end is None else min(frames, round(end * rate))


def read_blocks(
    source: str | Path | bytes | IO[bytes], *, block_seconds: float = BLOCK_SECONDS
) -> Iterator[Waveform]:
    """The sound in a recording of any length, block by block: (S,) mono at 16 kHz.

    Together they are what `load_audio` gives, in memory for one block of about `block_seconds`.

    Raises:
        FileNotFoundError: if there is no such file
        ValueError: if it is empty, damaged or no audio; what came before has been yielded
    """
    name = str(source) if isinstance(source, str | Path) else f"the {_kind(source)} given"
    with _decoding(source, name, 0.0, None, block_seconds) as (blocks, rate):
        yield from resampled(blocks, rate)


@contextmanager
def _decoding(
    source: str | Path | bytes | IO[bytes],
    name: str,
    start: float,
    end: float | None,
    block_seconds: float = BLOCK_SECONDS,
) -> Iterator[tuple[Iterator[NDArray[np.float32]], int]]:
    """The part asked for, decoded block by block, and its rate."""
    import soundfile

    try:
        with reachable(source) as there, _open(there, name) as file:
            rate = file.samplerate
            if isinstance(file, MediaFile):
                last = None if end is None else round(end * rate)
                yield file.blocks(round(start * rate), last, block_seconds), rate
            else:
                first, last = _part(file.frames, rate, name, start, end)
                yield _blocks(file, first, last, round(block_seconds * rate)), rate
    except soundfile.LibsndfileError as error:
        raise ValueError(
            f"{name} cannot be decoded as audio ({error}); "
            "it is damaged, convert it to wav or flac from its source."
        ) from error


def _blocks(file: Any, first: int, last: int, size: int) -> Iterator[NDArray[np.float32]]:
    """Samples `first` to `last` of a SoundFile, (S,) or (S, channels), `size` a time."""
    file.seek(first)
    while first < last:
        block = file.read(min(last - first, size), dtype="float32")
        if not len(block):
            return  # cut short: the header promised more
        yield block
        first += len(block)
