"""Many recordings through one function: batches of like length, errors as answers."""

from __future__ import annotations

import contextlib
import ctypes
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

from tqdm import tqdm

from emotion2vec.audio import SAMPLE_RATE, Waveform

READERS = 4
"""Threads that read and decode the next batches while one is computed."""

TRIM_EVERY = 2
"""Batches after which freed memory goes back to the system: glibc keeps it, in pieces that the next
batch, of another shape, hardly fits, so that over thousands of files a process would double."""


class Loadable(Protocol):
    """What can be read: `emotion2vec.manifest.Record`, or sound in memory."""

    def num_samples(self) -> int:
        """Samples at 16 kHz, found without decoding."""

    def load(self) -> Waveform:
        """The sound, (S,) at 16 kHz."""


class Outcome(NamedTuple):
    """What became of one recording."""

    position: int
    """in the sequence that was given"""
    value: Any
    """what the function made of it; None where it failed"""
    duration: float | None = None
    """in seconds; None where it could not be read"""
    error: str = ""


def encode_records(
    records: Sequence[Loadable],
    encode: Callable[[list[Waveform]], Sequence[Any]],
    *,
    batch_seconds: float = 20.0,
    progress: str = "",
) -> Iterator[Outcome]:
    """What `encode` makes of each recording, in an order that batches like lengths.

    A recording that cannot be read or encoded comes with an `error`; the others go on. A batch that
    fails, for lack of memory say, is tried again one by one.

    Args:
        records: what to read
        encode: clips (S,) at 16 kHz -> one value each
        batch_seconds: audio in a batch, padding counted; a longer recording is one of its own.
            Measured on two cores: 24 s and less are alike, 60 s are 12 % slower
        progress: title of a progress bar; none if empty
    """
    with (
        tqdm(total=len(records), desc=progress, disable=not progress, delay=1) as bar,
        ThreadPoolExecutor(READERS) as pool,
    ):
        lengths: dict[int, int] = {}
        for position, record in enumerate(records):
            try:
                lengths[position] = record.num_samples()
            except (OSError, ValueError) as error:
                bar.update()
                yield Outcome(position, None, error=str(error))
        positions = list(lengths)
        batches = batch_by_length(list(lengths.values()), int(batch_seconds * SAMPLE_RATE))
        chosen = ([positions[i] for i in batch] for batch in batches)
        for number, batch in enumerate(_read_ahead(records, chosen, pool)):
            yield from _encode_batch(batch, encode, bar)
            if number and number % TRIM_EVERY == 0:
                _trim_memory()


def lengths_of(records: Sequence[Loadable]) -> list[float | str]:
    """The seconds of each recording, from its header; of one that cannot be read, its error."""

    def length(record: Loadable) -> float | str:
        try:
            return record.num_samples() / SAMPLE_RATE
        except (OSError, ValueError) as error:
            return str(error)

    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(length, records))


Reading = list[tuple[int, Future[Waveform]]]
"""A batch: positions of recordings, and their sound on its way."""


def _read_ahead(
    records: Sequence[Loadable], batches: Iterable[list[int]], pool: ThreadPoolExecutor
) -> Iterator[Reading]:
    """Batches of recordings, of which the next two are being read."""
    reading: deque[Reading] = deque()
    for batch in batches:
        reading.append([(i, pool.submit(records[i].load)) for i in batch])
        if len(reading) > 2:
            yield reading.popleft()
    while reading:
        yield reading.popleft()


def _trim_memory() -> None:
    """Give freed memory back to the system, where the C library is glibc."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _encode_batch(
    reading: Reading,
    encode: Callable[[list[Waveform]], Sequence[Any]],
    bar: tqdm[Any],
) -> Iterator[Outcome]:
    clips: dict[int, Waveform] = {}
    for position, future in reading:
        try:
            clips[position] = future.result()
        except (OSError, ValueError) as error:
            bar.update()
            yield Outcome(position, None, error=str(error))
        except MemoryError as error:
            bar.update()
            yield Outcome(position, None, error=f"does not fit the memory: {error}")
    for outcome in _encode_clips(clips, encode):
        bar.update()
        yield outcome


def _encode_clips(
    clips: dict[int, Waveform], encode: Callable[[list[Waveform]], Sequence[Any]]
) -> Iterator[Outcome]:
    reason = ""
    try:
        values = encode(list(clips.values())) if clips else []
    except (RuntimeError, MemoryError) as error:  # out of memory, say
        reason = f"cannot be encoded: {error}"  # the error itself would hold on to what is in it
    if not reason:
        for (position, clip), value in zip(clips.items(), values, strict=True):
            yield Outcome(position, value, len(clip) / SAMPLE_RATE)
        return
    for position, clip in clips.items():
        if len(clips) > 1:
            yield from _encode_clips({position: clip}, encode)
        else:
            yield Outcome(position, None, error=reason)


def batch_by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions in `lengths`, cut into batches whose padded size stays within the budget.

    Longest first: what a machine has no memory for shows at once, and memory does not grow over a
    run. A clip over the budget is a batch of its own.

    Args:
        lengths: of the clips, in samples
        budget: samples in a batch, padding counted

    >>> list(batch_by_length([3, 10, 4, 25], 12))
    [[3], [1], [2, 0]]
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
