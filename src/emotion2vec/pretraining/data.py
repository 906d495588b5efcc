"""Recordings -> micro-batches, as a pure function of (recordings, config, number).

B clips, S samples, K masks a clip, T frames, V visible frames.

All micro-batches of a run stand in one endless line, numbered from 0; epoch and place in it follow
from the number. A run's position is therefore one integer, and any process can make any of them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from emotion2vec.audio import SAMPLE_RATE, Waveform, normalize
from emotion2vec.corpus import Corpus, Data, Skipped, open_corpus, too_short
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.masking import MASKERS, visible_indices
from emotion2vec.pretraining.order import Groups, Plan, draw_groups, plan_epoch
from emotion2vec.shards import Shard, ShardCache, UnreachableError

# What a generator is for; part of its seed, so that no two purposes share draws.
_ORDER, _CROP, _MASK, _GROUPS = range(4)


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


def scan(
    data: Data, config: PretrainConfig, *, saved: Path | None = None, progress: bool = True
) -> Corpus:
    """The index of what can be trained on; arguments and errors as `corpus.open_corpus`.

    Raises:
        ValueError: if nothing is left to train on; the message shows the first reason
    """
    corpus = open_corpus(data, min_seconds=config.min_clip_seconds, saved=saved, progress=progress)
    if not len(corpus):
        skipped = corpus.skipped
        reason = skipped[0].error if skipped else "there are no recordings"
        raise ValueError(f"none of {len(skipped)} recordings can be trained on: {reason}")
    return corpus


class Batches(Dataset[Batch]):
    """The endless line of micro-batches; `batches[number]` makes one.

    Raises:
        ValueError: when made, if the cache cannot hold the shards that are shuffled together
    """

    def __init__(self, corpus: Corpus, config: PretrainConfig) -> None:
        self.corpus, self.config = corpus, config
        self.cache = ShardCache(int(config.shard_cache_gb * 1e9))
        self.groups = self._draw_groups()
        self._group = -1
        self._plan: tuple[int, Plan] = (0, self._plan_epoch(0))
        self.batches_per_epoch = len(self._plan[1])

    def sizes(self) -> list[tuple[int, int]]:
        """Clips and samples of each micro-batch of the epoch at hand, if all can be read."""
        longest, plan = int(self.config.max_clip_seconds * SAMPLE_RATE), self._plan[1]
        batches = (plan[place] for place in range(len(plan)))
        return [(len(b), min(longest, int(self.corpus.lengths[b].min()))) for b in batches]

    def __getitem__(self, number: int) -> Batch:
        """Return micro-batch `number`: clips loaded, normalized, cropped alike; masks drawn.

        Recordings that cannot be read are left out; where none is left, the next batch of the
        line stands in. Shards that cannot be fetched end the line: the batch has no clips.
        """
        skipped: list[Skipped] = []
        try:
            for place in range(number, number + self.batches_per_epoch):
                epoch, indices = self._indices(place)
                clips = self._load(indices, skipped)
                if clips:
                    waveform = self._crop(clips, epoch, int(self.corpus.lengths[indices].max()))
                    visible = self._draw_visible(len(clips), waveform.shape[1], place)
                    return Batch(
                        torch.from_numpy(waveform), torch.from_numpy(visible), tuple(skipped)
                    )
        except UnreachableError as error:
            skipped = [Skipped("", str(error))]
        return Batch(torch.zeros(0, 0), torch.zeros(0, 0, 0, dtype=torch.int64), tuple(skipped))

    def _indices(self, number: int) -> tuple[int, NDArray[np.int32]]:
        """Return the epoch of a micro-batch, and its recordings."""
        epoch, place = divmod(number, self.batches_per_epoch)
        if self._plan[0] != epoch:
            self._plan = (epoch, self._plan_epoch(epoch))
        indices = self._plan[1][place]
        if self.groups:
            self._fetch_ahead(epoch, int(self.groups.of_clip[indices[0]]))
        return epoch, indices

    def _load(
        self, indices: NDArray[np.int32], skipped: list[Skipped]
    ) -> list[tuple[int, Waveform]]:
        """Return index and normalized sound of each readable recording; notes the others."""
        clips, shortest = [], self.config.min_clip_seconds
        for index in indices.tolist():
            try:
                samples = self.corpus.load(index, self.cache)
            except (OSError, ValueError) as error:
                skipped.append(Skipped(self.corpus.name(index)[0], str(error)))
                continue
            if len(samples) < shortest * SAMPLE_RATE:  # not what header or list said
                skipped.append(too_short(*self.corpus.name(index), len(samples), shortest))
                continue
            normal = self.config.model.normalize_waveform
            clips.append((index, normalize(samples) if normal else samples))
        return clips

    def _generator(self, purpose: int, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, purpose, *key])

    def _draw_groups(self) -> Groups | None:
        """Return the groups of shards that are fetched together, the same in all epochs."""
        sources = enumerate(self.corpus.sources)
        remote = {n: s.size for n, s in sources if isinstance(s, Shard) and not s.local}
        if not remote:
            return None
        together = self.config.shards_together
        largest = sum(sorted(remote.values())[-2 * together :])
        if largest > self.config.shard_cache_gb * 1e9:
            raise ValueError(
                f"shard_cache_gb is {self.config.shard_cache_gb}, but two groups of {together} "
                f"shards take {largest / 1e9:.3f}; raise it, or lower shards_together."
            )
        generator = self._generator(_GROUPS)
        return draw_groups(self.corpus.source, list(remote), together, generator)

    def _group_order(self, epoch: int) -> list[int]:
        count = len(self.groups.sources) if self.groups else 1
        return self._generator(_GROUPS, epoch).permutation(count).tolist()

    def _fetch_ahead(self, epoch: int, group: int) -> None:
        """When a group begins, fetch the shards of the next one meanwhile."""
        assert self.groups
        if group == self._group:
            return
        self._group = group
        order = self._group_order(epoch)
        after = [*order, self._group_order(epoch + 1)[0]][order.index(group) + 1]
        shards = [self.corpus.sources[n] for n in self.groups.sources[after]]

        def fetch() -> None:
            with contextlib.suppress(UnreachableError, OSError):  # said when it is needed
                for shard in shards:
                    self.cache.get(shard)

        threading.Thread(target=fetch, daemon=True).start()

    def _plan_epoch(self, epoch: int) -> Plan:
        return plan_epoch(
            self.corpus.lengths,
            max_batch_samples=int(self.config.max_batch_seconds * SAMPLE_RATE),
            max_clip_samples=int(self.config.max_clip_seconds * SAMPLE_RATE),
            generator=self._generator(_ORDER, epoch),
            groups=self.groups.of_clip if self.groups else None,
            group_order=self._group_order(epoch),
        )

    def _crop(self, clips: Sequence[tuple[int, Waveform]], epoch: int, planned: int) -> Waveform:
        """Return all clips at the length of the shortest, each from a random offset, (B, S).

        Never longer than was planned, so that wrong lengths in a list cost no memory.
        """
        longest = min(planned, int(self.config.max_clip_seconds * SAMPLE_RATE))
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
            worker_init_fn=_leave_group,
        )
    )


def _leave_group(worker: int) -> None:
    """Hear no signals to the group, Ctrl-C or torchrun's SIGTERM: the process that saves needs us.

    A loading process ends with it: DataLoader looks every 5 s whether it is still there.
    """
    os.setpgid(0, 0)
