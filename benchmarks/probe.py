"""The probe on frozen features: all seeds of a fold at once, against one run after the other.

python benchmarks/probe.py --data CORPORA/ravdess/manifest.jsonl --folds CORPORA/ravdess/folds.json

The plain way is the official script's: clips padded to the longest of a batch, a mask, autograd,
one run (fold and seed) after the other. Both see the same clips in the same order from the same
weights. Features are as wide as a base-size encoder's, 768, of random weights. Both ways take the
same time for each epoch, so that few epochs tell the ratio of a hundred. Without --data: 120 clips
of noise.
"""

import argparse
import platform
import time
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emotion2vec.backbones import encoder_backbone, random_encoder
from emotion2vec.config import Emotion2vecConfig
from emotion2vec.frame_cache import cached_frames
from emotion2vec.manifest import Record, read_manifest
from emotion2vec.metrics import classification_scores
from emotion2vec.probing.folds import Fold, make_folds
from emotion2vec.probing.heads import HeadConfig, LinearProbe
from emotion2vec.probing.tasks import Frames, label_set
from emotion2vec.probing.training import ClipSet, fit_heads, predict


class PaddedProbe(nn.Module):
    """The paper's probe on padded batches."""

    def __init__(self, probe: LinearProbe) -> None:
        super().__init__()
        width, hidden = probe.hidden.weight.shape[2], probe.hidden.weight.shape[1]
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, probe.output.weight.shape[1])
        with torch.no_grad():  # the first run's weights
            for ours, theirs in zip(self.parameters(), probe.parameters(), strict=True):
                ours.copy_(theirs[0])

    def forward(self, frames: Tensor, keep: Tensor) -> Tensor:
        """Logits (N, C) for frames (N, T, D)."""
        hidden = F.relu(self.hidden(frames)) * keep.unsqueeze(2)
        return self.output(hidden.sum(dim=1) / keep.sum(dim=1, keepdim=True))


def padded(clips: ClipSet) -> tuple[Tensor, Tensor, Tensor]:
    """Clips side by side, which frames are real, the classes."""
    frames = nn.utils.rnn.pad_sequence(
        [torch.from_numpy(np.array(clip)) for clip in clips.clips], batch_first=True
    )
    keep = torch.arange(frames.shape[1]) < clips.lengths[:, None]
    return frames, keep.float(), clips.targets


def plain_answers(model: PaddedProbe, clips: ClipSet, size: int) -> list[int]:
    """The class of each clip."""
    with torch.no_grad():
        starts = range(0, len(clips.clips), size)
        batches = [padded(clips.pick(range(len(clips.clips))[s : s + size])) for s in starts]
        return [c for x, keep, _ in batches for c in model(x, keep).argmax(dim=1).tolist()]


def plain_run(parts: list[ClipSet], num_classes: int, config: HeadConfig, seed: int) -> list[int]:
    """One run of the plain way: answers on the test part at the epoch best on validation."""
    train, valid, test = parts
    width = train.clips[0].shape[1]
    model = PaddedProbe(LinearProbe(width, num_classes, config.hidden_dim, (seed,)))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=config.lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CyclicLR(
        optimizer, config.lr, config.max_lr, step_size_up=config.step_epochs
    )
    generator, best, answers = np.random.default_rng(0), -1.0, []
    for _ in range(config.epochs):
        order = generator.permutation(len(train.clips)).tolist()
        for start in range(0, len(order), config.batch_size):
            frames, keep, classes = padded(train.pick(order[start : start + config.batch_size]))
            optimizer.zero_grad()
            F.cross_entropy(model(frames, keep), classes).backward()
            optimizer.step()
        schedule.step()
        said = plain_answers(model, valid, config.batch_size)
        wa = classification_scores(valid.targets.tolist(), said).wa
        if wa > best:
            best, answers = wa, plain_answers(model, test, config.batch_size)
    return answers


class Way(NamedTuple):
    """What one way took, and what it found."""

    seconds: float
    answers: list[list[int]]
    """of each seed"""


def both_ways(
    parts: list[ClipSet], num_classes: int, config: HeadConfig, seeds: range
) -> tuple[Way, Way]:
    """One fold: one run after the other, then all seeds at once."""
    start = time.perf_counter()
    plain = [plain_run(parts, num_classes, config, seed) for seed in seeds]
    middle = time.perf_counter()
    (fitted,) = fit_heads(parts[0], parts[1], num_classes, config=config, seeds=seeds)
    ours = predict(fitted.head, parts[2].clips).argmax(dim=2).T.tolist()
    end = time.perf_counter()
    return Way(middle - start, plain), Way(end - middle, ours)


def noise() -> tuple[list[Record], Frames]:
    """Clips of two speakers' worth of nothing, for a machine without a corpus."""
    random = np.random.default_rng(0)
    records, frames = [], {}
    for i in range(120):
        labels = {"emotion": "abcdefgh"[i % 8]}
        records.append(Record(str(i), "none.wav", speaker=str(i % 6), labels=labels))
        frames[str(i)] = random.normal(size=(random.integers(140, 260), 768)).astype(np.float32)
    return records, frames


def clip_set(part: tuple[Record, ...], frames: Frames, labels: list[str]) -> ClipSet:
    """The part's clips."""
    classes = torch.tensor([labels.index(str(record.emotion)) for record in part])
    return ClipSet([frames[record.key] for record in part], classes)


def floating_rate() -> float:
    """Products of matrices in GFLOP/s, on this machine, now."""
    a = torch.randn(2048, 2048)
    for _ in range(3):
        a @ a
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    return 10 * 2 * 2048**3 / (time.perf_counter() - start) / 1e9


def work(folds: list[Fold], frames: Frames, config: HeadConfig, seeds: int) -> float:
    """Floating-point operations that the probe's first layer needs, in GFLOP, nothing padded."""
    width = next(iter(frames.values())).shape[1]
    count = lambda part: sum(len(frames[record.key]) for record in part)  # noqa: E731
    passes = sum(2 * count(fold.train) + count(fold.valid) for fold in folds)
    return passes * 2 * width * config.hidden_dim * config.epochs * seeds / 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data")
    parser.add_argument("--folds")
    parser.add_argument("--take", type=int, default=None, help="only the first folds")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    if args.data:
        records = read_manifest(args.data)
        config = Emotion2vecConfig(prenet_depth=1, depth=1)  # of base width; its time is not asked
        backbone = encoder_backbone(random_encoder(config), "768 wide, random weights")
        frames, _ = cached_frames(records, backbone, progress=True)
        frames = {key: np.array(values) for key, values in frames.items()}  # from the disk, once
    else:
        records, frames = noise()
    made = make_folds(records, args.folds, num_folds=6)
    labels, folds = label_set(made), list(made.folds[: args.take])
    config = HeadConfig(epochs=args.epochs)
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{made.protocol}; {len(folds)} folds x {args.seeds} seeds x {args.epochs} epochs")
    took, scores = [0.0, 0.0], [[], []]
    for fold in folds:
        parts = [clip_set(part, frames, labels) for part in fold]
        truth = parts[2].targets.tolist()
        for i, way in enumerate(both_ways(parts, len(labels), config, range(args.seeds))):
            took[i] += way.seconds
            scores[i] += [classification_scores(truth, said).wa for said in way.answers]
    rate, flop = floating_rate(), work(folds, frames, config, args.seeds)
    for name, seconds, wa in zip(("one by one", "all at once"), took, scores, strict=True):
        print(
            f"{name:12} {seconds:8.1f} s  WA {100 * np.mean(wa):.2f}, mean of {len(wa)} runs  "
            f"{flop / seconds:4.0f} GFLOP/s of {rate:.0f}"
        )
    apart = 100 * np.abs(np.subtract(*scores)).max()
    print(f"{took[0] / took[1]:.2f} x faster; no run's WA differs by more than {apart:.2f} points")


if __name__ == "__main__":
    main()
