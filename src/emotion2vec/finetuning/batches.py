"""Clips in batches for training: order, augmentation and mixing follow from seed and epoch alone.

So a run that was killed goes on as if it had not been. B clips, S samples, C classes, K dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from emotion2vec.audio import SAMPLE_RATE, Waveform, pad_clips
from emotion2vec.classifiers import Classifier
from emotion2vec.conditions import keyed_generator
from emotion2vec.finetuning.augment import augment
from emotion2vec.finetuning.config import FinetuneConfig
from emotion2vec.finetuning.objective import Truth
from emotion2vec.finetuning.targets import UNKNOWN, Targets
from emotion2vec.manifest import Record
from emotion2vec.nonspeech import make_nonspeech

WINDOW_BATCHES = 8
"""So many batches' clips are sorted by length together."""

Place = tuple[int, int]
"""Epoch, and number of a clip."""


class Item(NamedTuple):
    """A clip as it was heard in one epoch."""

    place: Place
    waveform: Waveform
    """(S,), prepared"""
    classes: Tensor
    values: Tensor
    weight: float
    error: str = ""
    """why it could not be read; then it counts nothing"""


class ClipSet(Dataset[Item]):
    """Labelled recordings and, after them, made sound of the class "unknown"."""

    def __init__(
        self,
        records: Sequence[Record],
        targets: Targets,
        labels: Sequence[str],
        classifier: Classifier,
        config: FinetuneConfig,
    ) -> None:
        self.records, self.targets, self.config = records, targets, config
        self.prepare = classifier.prepare
        share = config.unknown_share
        most = int(config.max_clip_seconds * SAMPLE_RATE)
        self.lengths = [min(_length(record), most) for record in records]
        count = round(len(records) * share / (1 - share))
        self.made = keyed_generator(config.seed, "lengths").choice(self.lengths, count).tolist()
        """samples of each made sound: as long as the recordings are"""
        self.made_class = torch.tensor([float(name == UNKNOWN) for name in labels])

    def __len__(self) -> int:
        return len(self.records) + len(self.made)

    def mass(self) -> NDArray[np.float32]:
        """How many clips there are of each class, made ones too: (C,)."""
        mass: NDArray[np.float32] = self.targets.classes.sum(axis=0)
        return mass + len(self.made) * self.made_class.numpy()

    def num_samples(self) -> list[int]:
        """Samples of all clips, about: what batches are sorted by."""
        return [*self.lengths, *self.made]

    def __getitem__(self, place: Place) -> Item:
        epoch, index = place
        random = keyed_generator(self.config.seed, "clip", epoch, index)
        values = torch.full((self.targets.values.shape[1],), torch.nan)
        if index >= len(self.records):
            clip = make_nonspeech(self.made[index - len(self.records)], random)
            return Item(place, self.prepare(clip), self.made_class, values, 1.0)
        try:
            clip = augment(self.records[index].load(), self.config, random)
        except (OSError, ValueError) as error:
            silent = np.full(SAMPLE_RATE // 10, 1e-4, np.float32) * np.sin(np.arange(1600))
            nothing = torch.zeros_like(self.made_class)
            return Item(
                place, self.prepare(silent.astype(np.float32)), nothing, values, 0.0, str(error)
            )
        return Item(
            place,
            self.prepare(clip),
            torch.from_numpy(self.targets.classes[index]),
            torch.from_numpy(self.targets.values[index]),
            float(self.targets.weights[index]),
        )


def _length(record: Record) -> int:
    """Return the samples of a recording whose header was read before."""
    assert record.duration is not None
    return int(record.duration * SAMPLE_RATE)


@dataclass
class EpochBatches:
    """Batches of clips of like length, as many for each process; another order each epoch.

    >>> batches = EpochBatches([3, 1, 2, 4], 2, seed=0)
    >>> sorted(index for batch in batches for _, index in batch)
    [0, 1, 2, 3]
    """

    lengths: Sequence[int]
    size: int
    seed: int
    rank: int = 0
    world: int = 1
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; transformers' Trainer does."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, len(self.lengths) // (self.size * self.world))

    def __iter__(self) -> Iterator[list[Place]]:
        """Yield this process's batches: clips that fill no batch go along with the others."""
        order = keyed_generator(self.seed, "order", self.epoch).permutation(len(self.lengths))
        window = self.size * self.world * WINDOW_BATCHES
        places = [
            index
            for first in range(0, len(order), window)
            for index in sorted(
                order[first : first + window].tolist(), key=self.lengths.__getitem__
            )
        ]
        count = len(self) * self.world
        while len(places) < count:  # fewer clips than processes
            places += places
        batches = [part.tolist() for part in np.array_split(places, count)]
        shuffled = keyed_generator(self.seed, "batches", self.epoch).permutation(count)
        for number in shuffled[self.rank :: self.world]:
            yield [(self.epoch, index) for index in batches[number]]


class Loader(DataLoader[Item]):
    """A loader that transformers' Trainer tells the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Pass it on to the order of the batches."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


class Collate:
    """Items -> what a step takes, by name; clips and their targets are mixed where that is asked.

    `waveform` (B, S), `keep` (B, S), True at real samples; `classes`, `values` and `weights` as in
    `Truth`; `errors`, by key, why recordings could not be read.
    """

    def __init__(self, keys: Sequence[str], config: FinetuneConfig) -> None:
        self.keys, self.config = keys, config

    def __call__(self, items: Sequence[Item]) -> dict[str, Any]:
        """Pad and, perhaps, mix."""
        array, mask = pad_clips([item.waveform for item in items])
        waveform, keep = torch.from_numpy(array), torch.from_numpy(mask)
        truth = Truth(
            torch.stack([item.classes for item in items]),
            torch.stack([item.values for item in items]),
            torch.tensor([item.weight for item in items]),
        )
        if self.config.mixup:
            random = keyed_generator(self.config.seed, "mix", *items[0].place)
            waveform, keep, truth = mix(waveform, keep, truth, self.config.mixup, random)
        errors = {self.keys[item.place[1]]: item.error for item in items if item.error}
        return {"waveform": waveform, "keep": keep, **truth._asdict(), "errors": errors}


def mix(
    waveform: Tensor, keep: Tensor, truth: Truth, alpha: float, random: np.random.Generator
) -> tuple[Tensor, Tensor, Truth]:
    """Half of the batches: each clip with a part of another one, and their targets likewise.

    The sum is brought back to unit variance. Values stay those of the greater part.

    Source: Zhang et al. 2018, "mixup", on waveforms.
    """
    if random.random() < 0.5:
        return waveform, keep, truth
    share = float(random.beta(alpha, alpha))
    share = max(share, 1 - share)
    other = torch.from_numpy(random.permutation(len(waveform)))
    mixed = share * waveform + (1 - share) * waveform[other]
    both = keep | keep[other]
    power = mixed.square().sum(dim=1, keepdim=True) / both.sum(dim=1, keepdim=True)
    classes = share * truth.classes + (1 - share) * truth.classes[other]
    weights = share * truth.weights + (1 - share) * truth.weights[other]
    return mixed / power.clamp_min(1e-8).sqrt(), both, Truth(classes, truth.values, weights)
