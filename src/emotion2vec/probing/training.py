"""How heads are trained: all seeds of a fold at once, the epoch of each chosen on validation.

N clips, T frames of a clip, F frames of all clips together, R runs, C classes or values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from emotion2vec.concordance import concordance_scores
from emotion2vec.losses import concordance_loss
from emotion2vec.metrics import classification_scores
from emotion2vec.probing.heads import HEADS, HeadConfig
from emotion2vec.probing.networks import Head

CHUNK_FRAMES = 3000
"""Frames that a CPU takes at once: what is between the layers then stays in its cache."""


class ClipSet(NamedTuple):
    """Clips and what is true of them."""

    clips: Sequence[NDArray[np.float32]]
    """N of (T, D), or (T, L, D) of L layers"""
    targets: Tensor
    """classes (N,), values (N, C), or values of all frames (F, C)"""

    @property
    def lengths(self) -> Tensor:
        """Frames of each clip, (N,)."""
        return torch.tensor([len(clip) for clip in self.clips])

    def pick(self, chosen: Sequence[int], *, by_frame: bool = False) -> ClipSet:
        """Some of the clips; `by_frame` where each frame has a target."""
        if by_frame:
            each = self.targets.split(self.lengths.tolist())
            targets = torch.cat([each[i] for i in chosen])
        else:
            targets = self.targets[list(chosen)]
        return ClipSet([self.clips[i] for i in chosen], targets)


class Goal(NamedTuple):
    """What a head of one kind of task is trained for."""

    loss: Callable[[Tensor, Tensor], Tensor]
    """outputs (N, R, C), targets -> (R,)"""
    score: Callable[[Tensor, Tensor], list[float]]
    """likewise; what the epoch is chosen by, more is better"""
    sums: bool
    """whether the loss of a batch is the mean of its clips' losses"""


def cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    """The mean over clips (N, R, C) of -log p(class), for each run, (R,)."""
    expanded = classes[:, None].expand(logits.shape[:2])
    return (
        F.cross_entropy(logits.flatten(0, 1), expanded.flatten(), reduction="none")
        .view(logits.shape[:2])
        .mean(dim=0)
    )


def _accuracy(logits: Tensor, classes: Tensor) -> list[float]:
    truth = classes.tolist()
    return [classification_scores(truth, answers).wa for answers in logits.argmax(dim=2).T.tolist()]


def _concordance(outputs: Tensor, targets: Tensor) -> list[float]:
    truth = targets.double().numpy()
    names = [str(i) for i in range(truth.shape[1])]
    runs = outputs.double().transpose(0, 1).numpy()
    return [concordance_scores(truth, run, names)["ccc"] for run in runs]


GOALS = {
    "classes": Goal(cross_entropy, _accuracy, sums=True),
    "values": Goal(concordance_loss, _concordance, sums=False),
    "frame values": Goal(concordance_loss, _concordance, sums=False),
}
"""By the kind of a task."""


class Fitted(NamedTuple):
    """A trained head of R runs, and what each was chosen by."""

    head: Head
    epochs: list[int]
    """the chosen epoch of each run, from 1"""
    scores: list[float]
    """on the validation part"""


def fit_heads(
    train: ClipSet,
    valid: ClipSet,
    num_outputs: int,
    *,
    kind: str = "classes",
    config: HeadConfig | None = None,
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
) -> list[Fitted]:
    """For each seed the head of the epoch that is best on `valid`; the first one of equals.

    RMSprop with momentum 0.9; learning rate and momentum move in opposite triangles of 20 epochs.
    Seeds draw the heads' weights. The order of the clips is the same for all of them, so that heads
    that stack are trained as one: a run's result does not depend on which others go along.

    Args:
        train: what is fitted on
        valid: what the epoch is chosen on
        num_outputs: C
        kind: in `GOALS`
        config: which head and how it is trained
        seeds: one run each
        device: where heads are trained

    Returns:
        one with all runs for heads that stack, else one for each seed

    Raises:
        ValueError: if the clips have all layers and the head wants one, or the other way round

    Source: official `iemocap_downstream` script.
    """
    config = config or HeadConfig()
    make = HEADS[config.name]
    shape = train.clips[0].shape[1:]
    if len(shape) != (2 if config.name == "layers" else 1):
        raise ValueError(
            f"the head {config.name} was given frames of shape {shape}; the head layers needs all "
            'layers (layer="all"), the others one.'
        )
    groups = [tuple(seeds)] if make.stacks else [(seed,) for seed in seeds]
    fitted = []
    for group in groups:
        head = make(input_shape(train), num_outputs, config.hidden_dim, group).to(device)
        fitted.append(_fit(HeadTrainer(head, config, kind), train, valid, group))
    return fitted


def input_shape(clips: ClipSet) -> int | tuple[int, int]:
    """D of clips (T, D); L and D of clips (T, L, D)."""
    width = clips.clips[0].shape[1:]
    return width[0] if len(width) == 1 else (width[0], width[1])


def _fit(trainer: HeadTrainer, train: ClipSet, valid: ClipSet, seeds: Sequence[int]) -> Fitted:
    """Train all epochs, and put back what each run was at its best one."""
    head, runs = trainer.head, range(len(seeds))
    best = {name: value.clone() for name, value in head.state_dict().items()}
    scores, epochs = [-math.inf for _ in runs], [0 for _ in runs]
    # Of a head with a single run the seed orders the clips, too.
    generator = np.random.default_rng(seeds[0] if not head.stacks else 0)
    for epoch in range(1, trainer.config.epochs + 1):
        trainer.epoch(train, generator.permutation(len(train.clips)).tolist())
        found = trainer.goal.score(predict(head, valid.clips), valid.targets)
        better = [run for run in runs if found[run] > scores[run]]
        for run in better:
            scores[run], epochs[run] = found[run], epoch
        for name, value in head.state_dict().items():
            if head.stacks:
                best[name][better] = value[better]
            elif better:
                best[name] = value.clone()
    head.load_state_dict(best)
    return Fitted(head, epochs, scores)


class HeadTrainer:
    """Optimizer and schedule of the official script, one epoch at a time."""

    def __init__(self, head: Head, config: HeadConfig, kind: str = "classes") -> None:
        self.head, self.config, self.goal = head, config, GOALS[kind]
        self.by_frame = kind == "frame values"
        low, high = config.lr * head.rate, config.max_lr * head.rate
        self.optimizer = torch.optim.RMSprop(head.parameters(), lr=low, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.CyclicLR(
            self.optimizer, low, high, step_size_up=config.step_epochs
        )

    def epoch(self, train: ClipSet, order: Sequence[int] | None = None) -> list[float]:
        """One pass over the clips in `order`; for each run, the mean of the batches' losses."""
        order = range(len(train.clips)) if order is None else order
        size = self.config.batch_size
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        losses = [self._step(train.pick(batch, by_frame=self.by_frame)) for batch in batches]
        self.schedule.step()
        return torch.stack(losses).mean(dim=0).tolist()

    def _step(self, batch: ClipSet) -> Tensor:
        """One update; return each run's loss (R,)."""
        self.head.train()
        self.optimizer.zero_grad()
        losses = []
        for start, end in _chunks(batch.clips, _device(self.head) if self.goal.sums else None):
            frames, lengths = join(batch.clips[start:end], _device(self.head))
            targets = batch.targets if not self.goal.sums else batch.targets[start:end]
            loss = self.goal.loss(self.head(frames, lengths), targets.to(frames.device))
            loss = loss * ((end - start) / len(batch.clips))
            loss.sum().backward()  # runs share nothing: each gets the gradient of its own loss
            losses.append(loss.detach())
        self.optimizer.step()
        return torch.stack(losses).sum(dim=0)


@torch.no_grad()
def predict(head: Head, clips: Sequence[NDArray[np.float32]], *, embed: bool = False) -> Tensor:
    """What a head gives for each clip, (N, R, C); of frame values (F, R, C).

    Args:
        head: a trained head
        clips: N of (T, D)
        embed: give the first layer instead of the last, (N, R, H)
    """
    head.eval()
    answer: Callable[..., Tensor] = getattr(head, "embed") if embed else head  # noqa: B009
    device = _device(head)
    found = [answer(*join(clips[start:end], device)).cpu() for start, end in _chunks(clips, device)]
    return torch.cat(found)


def join(clips: Sequence[NDArray[np.float32]], device: str) -> tuple[Tensor, Tensor]:
    """The frames of clips one after the other, (F, ...), and the length of each, (N,)."""
    lengths = torch.tensor([len(clip) for clip in clips], device=device)
    return torch.from_numpy(np.concatenate(clips)).to(device), lengths


def _chunks(clips: Sequence[NDArray[np.float32]], device: str | None) -> Iterator[tuple[int, int]]:
    """Yield first and last + 1 of clips that are computed together; all, without a device."""
    if device is None:
        yield 0, len(clips)
        return
    budget = CHUNK_FRAMES if device == "cpu" else 100 * CHUNK_FRAMES
    start = frames = 0
    for i, clip in enumerate(clips):
        if i > start and frames + len(clip) > budget:
            yield start, i
            start, frames = i, 0
        frames += len(clip)
    yield start, len(clips)


def _device(head: Head) -> str:
    return next(head.parameters()).device.type
