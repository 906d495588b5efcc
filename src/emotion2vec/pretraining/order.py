"""The order of an epoch: which clips make which micro-batch, and which batch comes when.

N clips, M micro-batches, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Plan:
    """The micro-batches of an epoch, in their order: a sequence of clips' indices.

    Three arrays, not a list of M: an epoch of millions of clips takes some megabytes.
    """

    clips: NDArray[np.int32]
    """(N,): batch after batch, unshuffled"""
    starts: NDArray[np.int64]
    """(M + 1,): where in `clips` each batch starts"""
    turns: NDArray[np.int64]
    """(M,): which batch comes when"""

    def __len__(self) -> int:
        return len(self.turns)

    def __getitem__(self, place: int) -> NDArray[np.int32]:
        batch = self.turns[place]
        return self.clips[self.starts[batch] : self.starts[batch + 1]]


@dataclass(frozen=True)
class Groups:
    """Clips that are shuffled together, because they lie in shards that are fetched together."""

    of_clip: NDArray[np.int32]
    """(N,): in [0, G)"""
    sources: tuple[NDArray[np.int64], ...]
    """(G,): the numbers of the shards in each"""


def draw_groups(
    source: NDArray[np.int32],
    remote: Sequence[int],
    together: int,
    generator: np.random.Generator,
) -> Groups:
    """Groups of `together` remote sources; clips of other sources are dealt out among them.

    Args:
        source: (N,): the number of each clip's source
        remote: numbers of the sources that must be fetched
        together: how many of them make a group
        generator: what the draws come from

    >>> groups = draw_groups(np.array([0, 1, 2, 3, 3], np.int32), [0, 1, 3], 2,
    ...                      np.random.default_rng(0))
    >>> [members.tolist() for members in groups.sources]
    [[3, 0], [1]]
    >>> groups.of_clip[[0, 1, 3, 4]].tolist()
    [0, 1, 0, 0]
    """
    shuffled = generator.permutation(np.asarray(remote, dtype=np.int64))
    sources = tuple(shuffled[i : i + together] for i in range(0, len(shuffled), together))
    of_source = np.full(max([*remote, int(source.max())]) + 1, -1, dtype=np.int32)
    for number, members in enumerate(sources):
        of_source[members] = number
    of_clip = of_source[source]
    local = of_clip < 0
    of_clip[local] = generator.integers(len(sources), size=int(local.sum()))
    return Groups(of_clip, sources)


def plan_epoch(
    lengths: NDArray[np.integer],
    *,
    max_batch_samples: int,
    max_clip_samples: int,
    generator: np.random.Generator,
    groups: NDArray[np.int32] | None = None,
    group_order: Sequence[int] = (0,),
) -> Plan:
    """The micro-batches of an epoch, every clip once, like lengths together.

    Clips are sorted by length, equal ones at random, and cut into batches whose clips, padded to
    the longest, stay within the budget; then the batches are shuffled. With groups that is done
    in each of them, and they come one after the other. The number of batches depends on lengths
    and groups only, so that all epochs have as many.

    Args:
        lengths: (N,), in samples
        max_batch_samples: clips times the longest of them
        max_clip_samples: what longer clips will be cropped to
        generator: what the draws come from
        groups: (N,), in [0, G); None where all clips are one group
        group_order: (G,): which group comes when

    >>> plan = plan_epoch(np.array([5, 9, 5, 9]), max_batch_samples=20, max_clip_samples=9,
    ...                   generator=np.random.default_rng(0))
    >>> sorted(sorted(batch.tolist()) for batch in plan)
    [[0, 2], [1, 3]]
    """
    sizes = np.minimum(lengths, max_clip_samples).astype(np.int32)
    clips = generator.permutation(len(sizes)).astype(np.int32)
    clips = clips[np.argsort(-sizes[clips], kind="stable")]
    ends = np.array([len(clips)])
    if groups is not None:
        clips = clips[np.argsort(groups[clips], kind="stable")]
        ends = np.cumsum(np.bincount(groups, minlength=len(group_order)))
    counts = np.maximum(1, max_batch_samples // sizes[clips])
    pieces, batches_of, begin = [], [], 0
    for end in ends:
        pieces.append(_cut(counts[begin:end]) + begin)
        batches_of.append(len(pieces[-1]))
        begin = int(end)
    first = np.cumsum([0, *batches_of])
    turns = [first[g] + generator.permutation(batches_of[g]) for g in group_order]
    return Plan(clips, np.append(np.concatenate(pieces), len(clips)), np.concatenate(turns))


def _cut(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return where batches start if one that starts at i takes counts[i]; counts never fall."""
    starts, begin = [np.zeros(0, np.int64)], 0
    while begin < len(counts):  # once for each size of batch, not for each batch
        count = int(counts[begin])
        starts.append(np.arange(begin, np.searchsorted(counts, count, side="right"), count))
        begin = int(starts[-1][-1]) + count
    return np.concatenate(starts)
