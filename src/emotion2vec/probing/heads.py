"""The paper's probe: two linear layers on frozen frames, and how it is trained.

N clips, T frames of a clip, F frames of all clips together, D width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from emotion2vec.metrics import classification_scores


@dataclass(frozen=True)
class HeadConfig:
    """How the probe is trained; the defaults are the official script's."""

    hidden_dim: int = 256
    epochs: int = 100
    batch_size: int = 128
    lr: float = 5e-4
    max_lr: float = 1e-3
    step_epochs: int = 10
    """Epochs from the lowest to the highest learning rate; momentum runs the other way."""

    def __post_init__(self) -> None:
        """Refuse a head that would not be trained."""
        for name in ("hidden_dim", "epochs", "batch_size", "step_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")


class LinearProbe(nn.Module):
    """Linear, ReLU, mean over each clip's frames, linear: logits (N, C).

    Clips stand one after the other instead of side by side, so that nothing is padded.

    Source: paper section 4.2; official downstream `BaseModel`.

    >>> LinearProbe(48, 4)(torch.zeros(10, 48), torch.tensor([7, 3])).shape
    torch.Size([2, 4])
    """

    def __init__(self, input_dim: int, num_classes: int, hidden_dim: int = 256) -> None:
        super().__init__()
        self.hidden = nn.Linear(input_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, num_classes)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return logits for frames (F, D) of clips with `lengths` (N,) frames each."""
        return self.output(self.embed(frames, lengths))

    def embed(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Return what the paper's maps show, (N, hidden): the mean of the first layer's output."""
        hidden = F.relu(self.hidden(frames))
        clip = torch.repeat_interleave(lengths)  # (F,), the clip of each frame
        sums = hidden.new_zeros(len(lengths), hidden.shape[1]).index_add(0, clip, hidden)
        return sums / lengths.unsqueeze(1)


class FrameSet(NamedTuple):
    """Clips one after the other, with a class for each."""

    frames: Tensor
    """(F, D)"""
    lengths: Tensor
    """(N,)"""
    classes: Tensor
    """(N,)"""

    @classmethod
    def from_clips(cls, clips: Sequence[NDArray[np.float32]], classes: Sequence[int]) -> FrameSet:
        """Join clips (T, D)."""
        return cls(
            torch.from_numpy(np.concatenate(clips)),
            torch.tensor([len(clip) for clip in clips]),
            torch.tensor(classes),
        )

    def batches(self, size: int, order: Tensor | None = None) -> Iterator[FrameSet]:
        """Sets of at most `size` clips, in `order` (N,) where it is given."""
        order = torch.arange(len(self.lengths)) if order is None else order
        ends = self.lengths.cumsum(0)
        for chosen in order.split(size):
            spans = zip((ends - self.lengths)[chosen].tolist(), ends[chosen].tolist(), strict=True)
            frames = torch.cat([self.frames[start:end] for start, end in spans])
            yield FrameSet(frames, self.lengths[chosen], self.classes[chosen])


@dataclass(frozen=True)
class FittedProbe:
    """A trained probe and what it was chosen by."""

    probe: LinearProbe
    epoch: int
    """the chosen epoch, from 1"""
    valid_wa: float


def fit_probe(
    train: FrameSet,
    valid: FrameSet,
    num_classes: int,
    *,
    config: HeadConfig | None = None,
    seed: int = 0,
) -> FittedProbe:
    """The probe of the epoch with the best WA on `valid`; the first one of equals.

    RMSprop with momentum 0.9; learning rate and momentum move in opposite triangles of 20 epochs.

    Source: official `iemocap_downstream` script.
    """
    config = config or HeadConfig()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        probe = LinearProbe(train.frames.shape[1], num_classes, config.hidden_dim)
    generator = np.random.default_rng(seed)
    trainer = ProbeTrainer(probe, config)
    best, best_wa, best_epoch = probe.state_dict(), -1.0, 0
    for epoch in range(1, config.epochs + 1):
        trainer.epoch(train, torch.from_numpy(generator.permutation(len(train.lengths))))
        wa = classification_scores(valid.classes.tolist(), predict(probe, valid).tolist()).wa
        if wa > best_wa:
            best = {name: value.clone() for name, value in probe.state_dict().items()}
            best_wa, best_epoch = wa, epoch
    probe.load_state_dict(best)
    return FittedProbe(probe, best_epoch, best_wa)


class ProbeTrainer:
    """Optimizer and schedule of the official script, one epoch at a time."""

    def __init__(self, probe: LinearProbe, config: HeadConfig) -> None:
        self.probe, self.config = probe, config
        self.optimizer = torch.optim.RMSprop(probe.parameters(), lr=config.lr, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.CyclicLR(
            self.optimizer, config.lr, config.max_lr, step_size_up=config.step_epochs
        )

    def epoch(self, train: FrameSet, order: Tensor | None = None) -> float:
        """One pass over the clips in `order`; the mean of the batches' losses."""
        losses = []
        for batch in train.batches(self.config.batch_size, order):
            loss = F.cross_entropy(self.probe(batch.frames, batch.lengths), batch.classes)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach())
        self.schedule.step()
        return float(torch.stack(losses).mean())


@torch.no_grad()
def predict(probe: LinearProbe, clips: FrameSet, batch_size: int = 128) -> NDArray[np.int64]:
    """The class of each clip, (N,)."""
    logits = [probe(batch.frames, batch.lengths) for batch in clips.batches(batch_size)]
    return torch.cat(logits).argmax(dim=1).numpy()


@torch.no_grad()
def embed(probe: LinearProbe, clips: FrameSet, batch_size: int = 128) -> NDArray[np.float32]:
    """The probe's first layer of each clip, (N, hidden)."""
    vectors = [probe.embed(batch.frames, batch.lengths) for batch in clips.batches(batch_size)]
    return torch.cat(vectors).numpy()
