"""Recordings -> micro-batches, as a pure function of (recordings, config, number).

B clips, S samples, K masks a clip, T frames, V visible frames.

All micro-batches of a run stand in one endless line, numbered from 0; epoch and place in it follow
from the number. A run's position is therefore one integer, and any process can make any of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from emotion2vec.audio import SAMPLE_RATE, Waveform, normalize
from emotion2vec.manifest import Record
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.masking import MASKERS, visible_indices

# What a generator is for; part of its seed, so that no two purposes share draws.
_ORDER, _CROP, _MASK = range(3)


class Skipped(NamedTuple):
    """A recording that was left out, and why."""

    key: str
    error: str


class Batch(NamedTuple):
    """A micro-batch: clips of one length, and the frames that each mask leaves visible.

    It has no clips (B = 0) where no recording of a whole epoch could be read.
    """

    waveform: Tensor
    """(B, S), float32, normalized before the crop"""
    visible: Tensor
    """(B, K, V), int64, increasing"""
    skipped: tuple[Skipped, ...]
    """recordings of this batch that could not be read"""

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; the copy runs beside the computation where it can."""
        return self._replace(
            waveform=self.waveform.to(device, non_blocking=True),
            visible=self.visible.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Corpus:
    """Recordings that can be trained on, with their lengths in samples, and those left out."""

    records: tuple[Record, ...]
    lengths: NDArray[np.int64]
    skipped: tuple[Skipped, ...]

    @cached_property
    def digest(self) -> str:
        """Changes with keys, lengths and order: a resumed run must see the same corpus."""
        text = "\n".join(f"{r.key}\t{n}" for r, n in zip(self.records, self.lengths, strict=True))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def scan(records: Sequence[Record], config: PretrainConfig, *, progress: bool = True) -> Corpus:
    """Lengths of all recordings, from the files' headers.

    Raises:
        ValueError: if nothing is left to train on; the message shows the first reason
    """
    kept, lengths, skipped = [], [], []
    shortest = int(config.min_clip_seconds * SAMPLE_RATE)
    for record in tqdm(records, "reading headers", disable=not progress, leave=False):
        try:
            length = record.num_samples()
        except (OSError, ValueError) as error:
            skipped.append(Skipped(record.key, str(error)))
            continue
        if length < shortest:
            skipped.append(_too_short(record, length, config))
            continue
        kept.append(record)
        lengths.append(length)
    if not kept:
        reason = skipped[0].error if skipped else "there are no recordings"
        raise ValueError(f"none of {len(records)} recordings can be trained on: {reason}")
    return Corpus(tuple(kept), np.array(lengths, dtype=np.int64), tuple(skipped))


def _too_short(record: Record, length: int, config: PretrainConfig) -> Skipped:
    seconds = f"{length / SAMPLE_RATE:.3f} s, under min_clip_seconds ({config.min_clip_seconds})"
    return Skipped(record.key, f"{record.path} is {seconds}; leave it out or lower that setting.")


def plan_epoch(
    lengths: NDArray[np.int64],
    *,
    max_batch_samples: int,
    max_clip_samples: int,
    generator: np.random.Generator,
) -> list[NDArray[np.int64]]:
    """Indices of the clips of each micro-batch, every clip once, like lengths together.

    Clips are sorted by length, equal ones at random, and cut into batches whose clips, padded to
    the longest, stay within the budget; then the batches are shuffled. The number of batches
    depends on the lengths only, so that all epochs have as many.

    >>> plan = plan_epoch(np.array([5, 9, 5, 9]), max_batch_samples=20, max_clip_samples=9,
    ...                   generator=np.random.default_rng(0))
    >>> sorted(sorted(batch.tolist()) for batch in plan)
    [[0, 2], [1, 3]]
    """
    sizes = np.minimum(lengths, max_clip_samples)
    order = generator.permutation(len(lengths))
    order = order[np.argsort(-sizes[order], kind="stable")]
    batches, begin = [], 0
    while begin < len(order):
        count = max(1, max_batch_samples // int(sizes[order[begin]]))
        batches.append(order[begin : begin + count])
        begin += count
    return [batches[i] for i in generator.permutation(len(batches))]


class Batches(Dataset[Batch]):
    """The endless line of micro-batches; `batches[number]` makes one."""

    def __init__(self, corpus: Corpus, config: PretrainConfig) -> None:
        self.corpus, self.config = corpus, config
        self._plan: tuple[int, list[NDArray[np.int64]]] = (0, self._plan_epoch(0))
        self.batches_per_epoch = len(self._plan[1])

    def __getitem__(self, number: int) -> Batch:
        """Return micro-batch `number`: clips loaded, normalized, cropped alike; masks drawn.

        Recordings that cannot be read are left out; where none is left, the next batch of the
        line stands in.
        """
        skipped: list[Skipped] = []
        for place in range(number, number + self.batches_per_epoch):
            epoch, indices = self._indices(place)
            clips = self._load(indices, skipped)
            if clips:
                waveform = self._crop(clips, epoch)
                visible = self._draw_visible(len(clips), waveform.shape[1], place)
                return Batch(torch.from_numpy(waveform), torch.from_numpy(visible), tuple(skipped))
        return Batch(torch.zeros(0, 0), torch.zeros(0, 0, 0, dtype=torch.int64), tuple(skipped))

    def _indices(self, number: int) -> tuple[int, NDArray[np.int64]]:
        """Return the epoch of a micro-batch, and its recordings."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if self._plan[0] != epoch:
            self._plan = (epoch, self._plan_epoch(epoch))
        return epoch, self._plan[1][place]

    def _load(
        self, indices: NDArray[np.int64], skipped: list[Skipped]
    ) -> list[tuple[int, Waveform]]:
        """Return index and normalized sound of each readable recording; notes the others."""
        clips = []
        for index in indices:
            record = self.corpus.records[index]
            try:
                samples = record.load()
            except (OSError, ValueError) as error:
                skipped.append(Skipped(record.key, str(error)))
                continue
            if len(samples) < self.config.min_clip_seconds * SAMPLE_RATE:  # its header was wrong
                skipped.append(_too_short(record, len(samples), self.config))
                continue
            normal = self.config.model.normalize_waveform
            clips.append((int(index), normalize(samples) if normal else samples))
        return clips

    def _generator(self, purpose: int, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, purpose, *key])

    def _plan_epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        return plan_epoch(
            self.corpus.lengths,
            max_batch_samples=int(self.config.max_batch_seconds * SAMPLE_RATE),
            max_clip_samples=int(self.config.max_clip_seconds * SAMPLE_RATE),
            generator=self._generator(_ORDER, epoch),
        )

    def _crop(self, clips: Sequence[tuple[int, Waveform]], epoch: int) -> Waveform:
        """Return all clips at the length of the shortest, each from a random offset, (B, S)."""
        longest = int(self.config.max_clip_seconds * SAMPLE_RATE)
        length = min(longest, *(len(samples) for _, samples in clips))
        rows = []
        for index, samples in clips:
            offset = self._generator(_CROP, epoch, index).integers(len(samples) - length + 1)
            rows.append(samples[offset : offset + length])
        return np.stack(rows)

    def _draw_visible(self, clips: int, samples: int, number: int) -> NDArray[np.int64]:
        """Return (B, K, V): drawn after the crop, so that every row hides equally many."""
        config = self.config
        hidden = MASKERS[config.masker](
            clips * config.num_masks,
            config.model.num_frames(samples),
            share=config.mask_share,
            span=config.mask_span,
            adjust=config.mask_adjust,
            generator=self._generator(_MASK, number),
        )
        return visible_indices(hidden).reshape(clips, config.num_masks, -1)


def batch_loader(
    batches: Batches, *, first: int, rank: int, world: int, workers: int
) -> Iterator[Batch]:
    """The micro-batches `first + rank`, `first + rank + world`, ... without end."""

    class Numbers(torch.utils.data.Sampler[int]):
        def __iter__(self) -> Iterator[int]:
            number = first + rank
            while True:
                yield number
                number += world

    return iter(
        DataLoader(
            batches,
            batch_size=None,
            sampler=Numbers(),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if workers else None,
        )
    )
